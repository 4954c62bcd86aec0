"""Entries of an index, and the table that they become."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from theworld.data.indexing.table import SCHEMA
from theworld.data.rows.faults import DUPLICATE_ID, OK

_WEIGHTS = ("kept_turns", "num_images", "text_tokens", "target_tokens", "image_tokens", "world_tokens")
"""Columns that are 0 for an excluded row."""


@dataclass(kw_only=True, slots=True)
class Entry:
    """One row of the index; the attributes are its columns (see `theworld.data.indexing.table`)."""

    id: str = ""
    offset: int = 0
    size: int = 0
    row_crc32: int = -1
    image: str = ""
    image_bytes: int = 0
    image_sha256: str = ""
    width: int = 0
    height: int = 0
    turns: int = 0
    kept_turns: int = 0
    regions: int = 0
    num_images: int = 0
    text_tokens: int = 0
    target_tokens: int = 0
    image_tokens: int = 0
    world_tokens: int = 0
    verdict: str = OK


def entry_table(entries: list[Entry]) -> pa.Table:
    """Entries as columns of `SCHEMA`, outside any shard."""
    columns = {field.name: [getattr(entry, field.name) for entry in entries] for field in fields(Entry)}
    columns |= {"shard": [-1] * len(entries), "image_offset": [-1] * len(entries)}
    verdicts = pa.array(columns["verdict"], type=pa.string()).dictionary_encode()
    arrays = [
        verdicts if field.name == "verdict" else pa.array(columns[field.name], type=field.type) for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def without_repeated_ids(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Exclude every `ok` row whose id an earlier `ok` row has.

    Returns:
        The table, and the ids of the rows excluded.
    """
    verdicts = table["verdict"].cast(pa.string())
    rows = np.flatnonzero(pc.equal(verdicts, OK).to_numpy(zero_copy_only=False))
    ids = table["id"].combine_chunks().take(pa.array(rows))
    codes = ids.dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    is_repeated = np.ones(len(codes), dtype=bool)
    is_repeated[first] = False
    repeated = rows[is_repeated]
    if len(repeated) == 0:
        return table, []
    earlier = rows[first[codes[is_repeated]]]
    changed = verdicts.to_pylist()
    for row, other in zip(repeated.tolist(), earlier.tolist(), strict=True):
        changed[row] = f"{DUPLICATE_ID}: row {row} has the id of row {other}; rename it."
    columns = {"verdict": pa.array(changed, type=pa.string()).dictionary_encode()}
    for name in _WEIGHTS:
        values = table[name].to_numpy().copy()
        values[repeated] = 0
        columns[name] = pa.array(values)
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), SCHEMA.field(name), column)
    return table, ids.filter(pa.array(is_repeated)).to_pylist()

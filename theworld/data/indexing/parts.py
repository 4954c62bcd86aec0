"""The finished parts of an index that is being made, in a folder beside it, so that an interrupted run can go on.

A part is a run of consecutive rows, written atomically by whoever checked them, with its place in its metadata.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from theworld.data.indexing.table import SCHEMA, sync_folder
from theworld.data.rows.json_window import Span

_PLACE_KEY = b"part"


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a file.

    Attributes:
        number: Of the part, from 0 on.
        first_row: Number of its first row.
        spans: Where its rows lie.
    """

    number: int
    first_row: int
    spans: Sequence[Span]

    @property
    def begin(self) -> int:
        """First byte in the file."""
        return self.spans[0].offset

    @property
    def end(self) -> int:
        """Byte after the last one in the file."""
        return self.spans[-1].offset + self.spans[-1].size

    @property
    def place(self) -> bytes:
        """What a finished part must have in its metadata to be this one."""
        fields = {"first_row": self.first_row, "rows": len(self.spans), "begin": self.begin, "end": self.end}
        return json.dumps(fields).encode()


class PartsFolder:
    """Parts by number; one process at a time may fill it.

    Args:
        path: The folder, made if it is not there.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock: int | None = None

    def claim(self, facts: dict[str, object], *, restart: bool = False) -> None:
        """Begin, or go on if all that parts depend on is as it was when they were made.

        Args:
            facts: What they depend on, as plain JSON values.
            restart: Throw the parts away that are there.

        Raises:
            ValueError: The facts differ from those of the parts found, or another process is at work here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held, named = os.fstat(self._lock), os.stat(self.path / "lock")  # another run may just have removed it
            if held.st_ino != named.st_ino:
                raise FileNotFoundError(self.path / "lock")
        except OSError as error:
            raise ValueError(f"{self.path}: another process is making this index; wait for it, or stop it.") from error
        if restart:
            self._empty()
        facts = json.loads(json.dumps(facts))
        file = self.path / "facts.json"
        if file.exists():
            found = json.loads(file.read_text())
            changed = [
                f"{key} (then {found.get(key)}, now {facts[key]})" for key in facts if found.get(key) != facts[key]
            ]
            if changed:
                raise ValueError(
                    f"{self.path} holds parts of an index that was interrupted, and since then these changed: "
                    f"{'; '.join(changed)}. Set them back, or begin again with --restart (which removes the folder)."
                )
        else:
            draft = self.path / "facts.json.draft"
            draft.write_text(json.dumps(facts, indent=2) + "\n")
            os.replace(draft, file)

    def release(self) -> None:
        """Let others fill it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def holds(self, part: Part) -> bool:
        """Whether this very part is finished."""
        try:
            metadata = parquet.read_schema(self._file(part.number)).metadata or {}
        except (OSError, pa.ArrowInvalid):
            return False
        return metadata.get(_PLACE_KEY) == part.place

    def write(self, part: Part, table: pa.Table) -> None:
        """Keep a finished part; atomic."""
        table = table.replace_schema_metadata({_PLACE_KEY: part.place})
        descriptor, draft = tempfile.mkstemp(prefix=".part-", dir=self.path)
        with os.fdopen(descriptor, "wb") as file:
            parquet.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._file(part.number))

    def read(self, count: int) -> pa.Table:
        """The first `count` parts as one table, whatever they were made by."""
        sync_folder(self.path)
        table = pa.concat_tables(_with_plain_verdicts(parquet.read_table(self._file(n))) for n in range(count))
        columns = []
        for field in SCHEMA:  # one at a time, so that a column's parts are freed when they are joined
            column = table[field.name].combine_chunks()
            columns.append(column.dictionary_encode() if field.name == "verdict" else column)
            table = table.drop_columns(field.name)
            pa.default_memory_pool().release_unused()
        return pa.Table.from_arrays(columns, schema=SCHEMA)

    def remove(self) -> None:
        """Remove the folder, and only then let go of it."""
        self._empty()
        (self.path / "lock").unlink()
        self.path.rmdir()
        self.release()

    def _empty(self) -> None:
        for path in self.path.iterdir():
            if path.name != "lock":
                path.unlink()

    def _file(self, number: int) -> Path:
        return self.path / f"part-{number:06d}.parquet"


def _with_plain_verdicts(part: pa.Table) -> pa.Table:
    """Dictionaries differ from part to part, and so does the metadata."""
    place = part.schema.get_field_index("verdict")
    part = part.replace_schema_metadata(None)
    return part.set_column(place, "verdict", part["verdict"].cast(pa.string()))

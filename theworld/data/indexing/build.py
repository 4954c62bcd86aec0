"""Making an index in memory, for files small enough to be read through at every start; `index_file` is for others."""

from __future__ import annotations

from collections.abc import Iterable

from rich.progress import track

from theworld.data.indexing.check import RowChecker
from theworld.data.indexing.entries import entry_table, without_repeated_ids
from theworld.data.indexing.header import make_header
from theworld.data.indexing.index import Index
from theworld.data.indexing.table import SourceFile
from theworld.data.pictures.regions import RegionStyle
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.faults import OK, TOO_LONG
from theworld.data.rows.osd import OSDRows

_PROGRESS_FROM = 2000


def build_index(
    rows: OSDRows,
    processor: TheWorldProcessor,
    *,
    max_seq_length: int,
    name: str,
    region_style: RegionStyle = "box",
    skip_malformed: bool = False,
    progress: bool = True,
) -> Index:
    """Read and tokenise every row once; images are hashed and their headers read, but they are not decoded.

    Args:
        rows: The file.
        processor: Gives lengths; its settings are part of what is counted.
        max_seq_length: Longest sample, in tokens. Whole trailing turns beyond it are dropped.
        name: Name of the split, for messages.
        region_style: With `mask`, every region's mask is checked too.
        skip_malformed: False raises the first malformed row's error; True excludes such rows and counts them.
        progress: Show a progress bar when there are more than 2000 rows.

    Raises:
        ValueError: A malformed row (unless skipped), or no row is left.
    """
    status = rows.path.stat()
    source = SourceFile(name=rows.path.name, bytes=status.st_size, sha256=rows.json.sha256, mtime_ns=status.st_mtime_ns)
    header = make_header(
        processor,
        row_format=rows.row_format.name,
        source=source,
        max_seq_length=max_seq_length,
        region_style=region_style,
    )
    checker = RowChecker(
        rows.images,
        processor,
        row_format=rows.row_format,
        max_seq_length=max_seq_length,
        region_style=region_style,
        decode_images=False,
    )
    entries = []
    numbers: Iterable[int] = range(len(rows))
    if progress and len(rows) > _PROGRESS_FROM:
        numbers = track(numbers, description=f"indexing {name}")
    for number in numbers:
        entry = checker.entry(
            rows.json[number], number=number, offset=int(rows.json.offsets[number]), where=rows.where(number)
        )
        code, _, detail = entry.verdict.partition(": ")
        if not skip_malformed and code not in (OK, TOO_LONG):
            raise ValueError(detail)
        entries.append(entry)
    table, repeated = without_repeated_ids(entry_table(entries))
    if repeated and not skip_malformed:
        raise ValueError(
            f"{rows.path}: found ids that occur more than once, {repeated[:5]}, expected one id a row "
            "(answers of different models are compared by id); rename them."
        )
    index = Index(name=name, header=header, table=table)
    if not len(index):
        raise ValueError(
            f"{name}: none of the {len(rows)} rows of {rows.path} can be used, the first because: {index.verdicts[0]}; "
            f"repair the rows, or raise max_seq_length={max_seq_length}."
        )
    return index

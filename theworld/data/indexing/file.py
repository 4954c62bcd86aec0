"""Making the index of a file of many gigabytes, once, on disk: in parallel, with bounded memory, resumable.

The parent reads the file through, hashes it and finds where rows lie; workers read, parse and check runs of rows
(parts) and write them beside the index. When all parts are there they become one parquet file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from theworld.data.indexing.entries import without_repeated_ids
from theworld.data.indexing.header import make_header
from theworld.data.indexing.index import Index
from theworld.data.indexing.parts import Part, PartsFolder
from theworld.data.indexing.table import IndexHeader, SourceFile
from theworld.data.indexing.workers import Work, Workers
from theworld.data.pictures.regions import RegionStyle
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.formats import format_named
from theworld.data.rows.json_rows import row_spans
from theworld.data.rows.json_window import Span
from theworld.data.stores import ImageFolder

PART_BYTES = 16 << 20
PART_ROWS = 1024
"""A part ends with the row that reaches one of the two; what an interrupted run loses is the parts in work."""

_CHUNK_BYTES = 4 << 20


def index_file(
    rows_path: str | Path,
    *,
    image_folder: str | Path,
    output: str | Path,
    processor: TheWorldProcessor,
    row_format: str = "osd",
    max_seq_length: int,
    region_style: RegionStyle = "box",
    num_workers: int | None = None,
    check_images: bool = True,
    restart: bool = False,
    progress: bool = True,
) -> Index:
    """Check every row of a file and write its index; a run that was interrupted goes on where it stopped.

    Every row gets an entry; one that cannot be used gets a verdict that says where it is and why, and costs no other.

    Args:
        rows_path: JSON array of objects, or JSON Lines.
        image_folder: Folder below which every image lies.
        output: The parquet file to make; `<output>.parts` beside it holds what is finished.
        processor: Counts tokens.
        row_format: `osd`, `llava` or `vsr`.
        max_seq_length: Longest sample, in tokens. Whole trailing turns beyond it are dropped.
        region_style: `mask` checks every mask's runs too; `box` only that masks have the image's size.
        num_workers: Worker processes besides this one; 0 works in this one, None takes one a CPU.
        check_images: Decode every image to find damaged ones; False hashes them and reads their headers.
        restart: Throw away what an interrupted run has finished.
        progress: Show a progress bar.

    Raises:
        ValueError: An output that is something else already, no such file or folder, no rows, other settings than those
            of the interrupted run, another run at work on the same output, or a file that changed meanwhile.
    """
    rows_path, output = Path(rows_path), Path(output)
    _check_output(output)
    work = Work(
        rows_path=rows_path,
        image_folder=Path(image_folder),
        parts=Path(f"{output}.parts"),
        processor=processor,
        row_format=row_format,
        max_seq_length=max_seq_length,
        region_style=region_style,
        check_images=check_images,
    )
    format_named(row_format)
    ImageFolder(image_folder, rows_path=rows_path)
    source = _source(rows_path)
    header = make_header(
        processor, row_format=row_format, source=source, max_seq_length=max_seq_length, region_style=region_style
    )
    folder = PartsFolder(work.parts)
    try:
        folder.claim(_facts(header, image_folder, check_images), restart=restart)
        digest = hashlib.sha256()
        count = _make_parts(work, folder, digest.update, num_workers=num_workers, progress=progress)
        header = replace(header, source=replace(source, sha256=digest.hexdigest()))
        if _source(rows_path) != source:
            raise ValueError(f"{rows_path}: changed while it was indexed; index it again when it is complete.")
        if count == 0:
            raise ValueError(f"{rows_path}: holds no rows.")
        table, _ = without_repeated_ids(folder.read(count))
        index = Index(name=str(output), header=header, table=table)
        index.write(output)
        folder.remove()
    finally:
        folder.release()
    return index


def _check_output(path: Path) -> None:
    """Refuse to write over anything but an index, before hours are spent on it."""
    if path.is_dir():
        raise ValueError(f"output {path} is a folder, expected the name of a parquet file; choose another.")
    if path.exists():
        try:
            Index.read(path)
        except ValueError as error:
            raise ValueError(
                f"output {path} exists and is no index ({error}), and would be written over; choose another name."
            ) from error


def _source(path: Path) -> SourceFile:
    """The file as it is now, without its hash."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected rows as a JSON array or JSON Lines.")
    status = path.stat()
    return SourceFile(name=path.name, bytes=status.st_size, sha256="", mtime_ns=status.st_mtime_ns)


def _facts(header: IndexHeader, image_folder: str | Path, check_images: bool) -> dict[str, object]:
    facts = asdict(header)
    source, settings = facts.pop("source"), facts.pop("settings")
    facts |= {f"rows {key}": value for key, value in source.items()}
    facts |= settings
    facts |= {"image_folder": str(Path(image_folder).resolve()), "check_images": check_images}
    return facts | {"part_bytes": PART_BYTES, "part_rows": PART_ROWS}


def _make_parts(
    work: Work,
    folder: PartsFolder,
    on_bytes: Callable[[bytes], object],
    *,
    num_workers: int | None,
    progress: bool,
) -> int:
    """Make the parts that are missing; returns how many there are in all."""
    workers = _cpus() if num_workers is None else num_workers
    count = 0
    with Workers(work, workers) as pool, _progress_bar(progress) as bar:
        task = bar.add_task(f"indexing {work.rows_path.name}", total=work.rows_path.stat().st_size, excluded=0)
        excluded = 0
        for part in _parts(row_spans(work.rows_path, chunk_bytes=_CHUNK_BYTES, on_bytes=on_bytes)):
            count += 1
            if folder.holds(part):
                bar.advance(task, part.end - part.begin)
                continue
            for size, bad in pool.submit(part):
                excluded += bad
                bar.update(task, advance=size, excluded=excluded)
        for size, bad in pool.rest():
            excluded += bad
            bar.update(task, advance=size, excluded=excluded)
        bar.update(task, completed=work.rows_path.stat().st_size)
    return count


def _cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parts(spans: Iterator[Span]) -> Iterator[Part]:
    """Runs of rows, the same for the same file whatever happens in between."""
    number = first_row = size = 0
    run: list[Span] = []
    for span in spans:
        run.append(span)
        size += span.size
        if size >= PART_BYTES or len(run) == PART_ROWS:
            yield Part(number, first_row, run)
            number, first_row, size, run = number + 1, first_row + len(run), 0, []
    if run:
        yield Part(number, first_row, run)


def _progress_bar(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[excluded]} excluded"),
        TimeRemainingColumn(),
        disable=not shown,
    )

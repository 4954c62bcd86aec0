"""Worker processes that make the parts of an index."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

import pyarrow.compute as pc

from theworld.data.indexing.check import RowChecker
from theworld.data.indexing.entries import Entry, entry_table
from theworld.data.indexing.parts import Part, PartsFolder
from theworld.data.pictures.regions import RegionStyle
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.faults import MALFORMED, OK
from theworld.data.rows.formats import format_named
from theworld.data.stores import ImageFolder


@dataclass(frozen=True)
class Work:
    """What a worker needs to know."""

    rows_path: Path
    image_folder: Path
    parts: Path
    processor: TheWorldProcessor
    row_format: str
    max_seq_length: int
    region_style: RegionStyle
    check_images: bool


class Workers:
    """Processes that make parts; submitting waits while each has one in work and one to come."""

    def __init__(self, work: Work, count: int):
        self._work = work
        self._limit = 2 * count
        self._pending: set[Future[tuple[int, int]]] = set()
        self._pool: ProcessPoolExecutor | None = None
        if count:
            # A forked worker shares the tokenizer and the libraries with this process; a spawned one has its own.
            context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
            self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(work,))
            self._pool.submit(int).result()  # all are forked here, before there are other threads

    def __enter__(self) -> Workers:
        if self._pool is None:
            _open_checker(self._work)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, part: Part) -> list[tuple[int, int]]:
        """Have a part made; returns (bytes, excluded rows) of parts that are finished now."""
        if self._pool is None:
            return [_make_part(part)]
        self._pending.add(self._pool.submit(_make_part, part))
        return self._finished() if len(self._pending) >= self._limit else []

    def rest(self) -> Iterator[tuple[int, int]]:
        """Wait for all parts; yields (bytes, excluded rows) of each."""
        while self._pending:
            yield from self._finished()

    def _finished(self) -> list[tuple[int, int]]:
        done, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
        try:
            return [future.result() for future in done]
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker process died, perhaps for lack of memory; run the same command again to go on where it "
                "stopped, with fewer workers."
            ) from error


_checker: tuple[Work, RowChecker] | None = None
"""Of this worker process."""


def _start_worker(work: Work) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and stops its workers
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a worker a CPU is enough
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _open_checker(work)


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, which would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _open_checker(work: Work) -> None:
    global _checker
    checker = RowChecker(
        ImageFolder(work.image_folder, rows_path=work.rows_path),
        work.processor,
        row_format=format_named(work.row_format),
        max_seq_length=work.max_seq_length,
        region_style=work.region_style,
        decode_images=work.check_images,
    )
    _checker = work, checker


def _make_part(part: Part) -> tuple[int, int]:
    """Check the rows of a part and write it; returns its bytes and how many rows are excluded."""
    assert _checker is not None
    work, checker = _checker
    entries = []
    with work.rows_path.open("rb", buffering=0) as file:
        for number, span in enumerate(part.spans, start=part.first_row):
            where = f"row {number} (byte {span.offset})"
            if span.fault is not None:
                verdict = f"{MALFORMED}: {where}: {span.fault}"
                entries.append(Entry(offset=span.offset, size=span.size, verdict=verdict))
                continue
            raw = os.pread(file.fileno(), span.size, span.offset)
            try:
                entries.append(checker.entry(raw, number=number, offset=span.offset, where=where))
            except Exception as error:
                error.add_note(f"while checking {where} of {work.rows_path}")
                raise
    table = entry_table(entries)
    PartsFolder(work.parts).write(part, table)
    excluded = pc.sum(pc.not_equal(table["verdict"].cast("string"), OK)).as_py()
    return part.end - part.begin, excluded

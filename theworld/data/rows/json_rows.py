"""Where each row of a JSON file lies, found in one pass with bounded memory, so that a 30 GB array is never loaded.

A JSON array of objects and JSON Lines are both read. Whether a row is valid JSON shows when it is parsed; where the
next row begins after a broken one is told in `theworld.data.rows.json_array`, and is the next line in JSON Lines.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from theworld.data.rows.json_array import array_spans
from theworld.data.rows.json_window import MAX_ROW_BYTES, SPACE, Span, Window, too_long

CHUNK_BYTES = 1 << 20


def row_spans(
    path: str | Path, *, chunk_bytes: int = CHUNK_BYTES, on_bytes: Callable[[bytes], object] | None = None
) -> Iterator[Span]:
    """The rows of a file in order, and in their place the bytes that are no row.

    Args:
        path: JSON array of objects, or JSON Lines with one object a line.
        chunk_bytes: How much is read at a time.
        on_bytes: Gets all bytes of the file, in order (to hash them in the same pass).

    Raises:
        ValueError: There is no such file, or it is neither form.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected OSD rows as a JSON array or JSON Lines.")
    with path.open("rb", buffering=0) as file:
        window = Window(file, chunk_bytes, on_bytes)
        while not (first := window.buffer.lstrip(SPACE)[:1]) and window.more(len(window.buffer)):
            pass
        if first == b"[":
            yield from array_spans(window)
        elif first == b"{":
            yield from _line_spans(window)
        else:
            raise ValueError(f"{path}: starts with {first!r}, expected '[' (JSON array) or '{{' (JSON Lines).")


class JsonRows:
    """Random access to the bytes of each row of a sound file that is small enough to be read through at every start.

    Safe to fork (reads give their own offset) and to pickle (the file is opened again).

    Args:
        path: JSON array of objects, or JSON Lines with one object a line.
        chunk_bytes: How much is read at a time while rows are located.

    Attributes:
        sha256: Of the whole file, hexadecimal.

    Raises:
        ValueError: The file is neither form, is empty, or holds anything but whole rows.
    """

    def __init__(self, path: str | Path, *, chunk_bytes: int = CHUNK_BYTES):
        self.path = Path(path)
        digest = hashlib.sha256()
        flat = array("q")
        for span in row_spans(self.path, chunk_bytes=chunk_bytes, on_bytes=digest.update):
            if span.fault is not None:
                raise ValueError(f"{self.path}: {span.fault}")
            flat.extend((span.offset, span.size))
        if not flat:
            raise ValueError(f"{self.path}: holds no rows.")
        self.offsets: NDArray[np.int64] = np.array(flat[0::2], dtype=np.int64)
        self.sizes: NDArray[np.int64] = np.array(flat[1::2], dtype=np.int64)
        self.sha256 = digest.hexdigest()
        self._file: BinaryIO | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, row: int) -> bytes:
        """The bytes of one row."""
        if not 0 <= row < len(self):
            raise IndexError(f"{self.path}: row {row} asked for, found {len(self)} rows.")
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
        return os.pread(self._file.fileno(), int(self.sizes[row]), int(self.offsets[row]))

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None}


def _line_spans(window: Window) -> Iterator[Span]:
    begin = searched = 0
    while True:
        end = window.buffer.find(b"\n", searched)
        if end < 0 and not window.ended:
            if len(window.buffer) - begin > MAX_ROW_BYTES:
                offset = window.start + begin
                end = window.skip_to(b"\n", len(window.buffer))
                yield Span(offset, size := window.start + end - offset, too_long(offset, size))
                begin = searched = end
                continue
            searched = len(window.buffer) - begin
            window.more(begin)
            begin = 0
            continue
        line = window.buffer[begin : end if end >= 0 else None]
        if row := line.strip(SPACE):
            offset = window.start + begin + len(line) - len(line.lstrip(SPACE))
            yield Span(offset, len(row), too_long(offset, len(row)) if len(row) > MAX_ROW_BYTES else None)
        if end < 0:
            return
        begin = searched = end + 1

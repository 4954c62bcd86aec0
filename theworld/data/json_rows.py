"""Where each row of a JSON file lies, found in one pass with bounded memory, so that a 30 GB array is never loaded.

A JSON array of objects and JSON Lines are both read. Only braces and strings are looked at; whether a row is
valid JSON shows when it is parsed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 1 << 20
MAX_ROW_BYTES = 64 << 20
"""Longest row that is accepted; OSD's are some 30 kB."""

_BRACE = re.compile(rb'(?:[^"{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+([{}])', re.DOTALL)
_SPACE = b" \t\r\n"


class JsonRows:
    """Random access to the bytes of each row.

    Safe to fork (reads give their own offset) and to pickle (the file is opened again).

    Args:
        path: JSON array of objects, or JSON Lines with one object a line.
        chunk_bytes: How much is read at a time while rows are located.

    Raises:
        ValueError: The file is neither form, is empty, or ends in the middle of a row.
    """

    def __init__(self, path: str | Path, *, chunk_bytes: int = CHUNK_BYTES):
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{self.path}: no such file, expected OSD rows as a JSON array or JSON Lines.")
        with self.path.open("rb") as file:
            first = _first_byte(file, chunk_bytes)
            file.seek(0)
            if first == b"[":
                spans = _array_spans(file, self.path, chunk_bytes)
            elif first == b"{":
                spans = _line_spans(file)
            else:
                raise ValueError(f"{self.path}: starts with {first!r}, expected '[' (JSON array) or '{{' (JSON Lines).")
            flat = np.fromiter((number for span in spans for number in span), dtype=np.int64)
        self.offsets: NDArray[np.int64] = flat[0::2].copy()
        self.sizes: NDArray[np.int64] = flat[1::2].copy()
        self._file: BinaryIO | None = None
        if len(self.offsets) == 0:
            raise ValueError(f"{self.path}: holds no rows.")
        if (longest := int(self.sizes.max())) > MAX_ROW_BYTES:
            row = int(self.sizes.argmax())
            raise ValueError(f"{self.path}: row {row} has {longest} bytes, expected at most {MAX_ROW_BYTES}.")

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


def _first_byte(file: BinaryIO, chunk_bytes: int) -> bytes:
    while chunk := file.read(chunk_bytes):
        if stripped := chunk.lstrip(_SPACE):
            return stripped[:1]
    return b""


def _line_spans(file: BinaryIO) -> Iterator[tuple[int, int]]:
    offset = 0
    for line in file:
        if row := line.strip(_SPACE):
            yield offset + (len(line) - len(line.lstrip(_SPACE))), len(row)
        offset += len(line)


def _array_spans(file: BinaryIO, path: Path, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of each object of the outermost array."""
    buffer = b""
    start = 0  # of the buffer, in the file
    depth = 0
    row = 0  # where the current row begins, in the file
    end = -1  # where the last row ended
    gap = b""  # what lies outside rows since then
    while chunk := file.read(chunk_bytes):
        buffer += chunk
        if len(buffer) > MAX_ROW_BYTES + chunk_bytes:
            raise ValueError(f"{path}: more than {MAX_ROW_BYTES} bytes without a brace after byte {start}.")
        position = 0
        while match := _BRACE.match(buffer, position):
            brace = match.start(1)
            if depth == 0:
                gap += buffer[position:brace]
            position = match.end()
            if match.group(1) == b"{":
                if depth == 0:
                    row = start + brace
                    _check_gap(gap, b"[" if end < 0 else b",", path, row)
                    gap = b""
                depth += 1
            else:
                depth -= 1
                if depth < 0:
                    raise ValueError(f"{path}: found a closing brace without an opening one at byte {start + brace}.")
                if depth == 0:
                    end = start + position
                    yield row, end - row
        buffer = buffer[position:]
        start += position
    if depth:
        raise ValueError(
            f"{path}: ends in the middle of the row that begins at byte {row}; the file is cut short, fetch it again."
        )
    _check_gap(gap + buffer, b"]" if end >= 0 else b"[]", path, start)


def _check_gap(gap: bytes, expected: bytes, path: Path, offset: int) -> None:
    found = gap.translate(None, _SPACE)
    if found != expected:
        raise ValueError(
            f"{path}: found {found[:40]!r} before byte {offset}, expected {expected.decode()!r}; "
            "rows must be the objects of one JSON array."
        )

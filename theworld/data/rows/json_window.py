"""A sliding view of a large file, and what its scanners report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

SPACE = b" \t\r\n"

MAX_ROW_BYTES = 16 << 20
"""Longest row that is accepted: OSD's have some 35 kB, and parsing can take twenty times the memory of the text."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where one row lies.

    Attributes:
        offset: Its first byte in the file.
        size: Its bytes.
        fault: Why these bytes are no row, or None.
    """

    offset: int
    size: int
    fault: str | None = None


class Window:
    """The part of a file that is looked at: `buffer` begins at byte `start`.

    Args:
        file: Opened without buffering, at its beginning.
        chunk_bytes: How much is read at a time.
        on_bytes: Gets every byte of the file once, in order.
    """

    def __init__(self, file: BinaryIO, chunk_bytes: int, on_bytes: Callable[[bytes], object] | None):
        self.buffer = b""
        self.start = 0
        self.ended = False
        self._file = file
        self._chunk_bytes = chunk_bytes
        self._on_bytes = on_bytes

    def more(self, used: int) -> bool:
        """Drop the first `used` bytes and read on; False if that was the end of the file."""
        chunk = self._file.read(self._chunk_bytes)
        if self._on_bytes is not None:
            self._on_bytes(chunk)
        self.ended = not chunk
        self.buffer = self.buffer[used:] + chunk
        self.start += used
        return not self.ended

    def skip_to(self, target: bytes, begin: int) -> int:
        """Where `target` is next found from `begin` on, or the end of the file; what is passed over is not kept.

        Returns:
            Position in the buffer, which may begin elsewhere now.
        """
        while (found := self.buffer.find(target, begin)) < 0 and not self.ended:
            used = max(begin, len(self.buffer) - len(target) + 1)
            self.more(used)
            begin = 0
        return found if found >= 0 else len(self.buffer)


def too_long(offset: int, size: int) -> str:
    """The fault of a row of more than `MAX_ROW_BYTES`."""
    return f"the row at byte {offset} has {size} bytes, expected at most {MAX_ROW_BYTES}; repair or remove it."

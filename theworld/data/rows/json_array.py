"""The rows of a JSON array of objects: braces are counted, strings are jumped over, nothing is parsed.

A broken row costs itself and no other. The next row begins where the opening of the first row (the bytes up to its
first key's colon, such as `{"filename":`) occurs again: quotes inside JSON text are escaped, so these bytes never
occur inside a sound string. The limits of this rule:

- Rows that begin with another key than the first are found while all is well, but one that follows a broken row is
  lost with it. So is what follows a first row that is broken in its very first key.
- If objects inside rows begin with that key too, a broken row may be reported as several. A sound row never is, unless
  it goes on for more than 1 MiB after such an object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from theworld.data.rows.json_window import MAX_ROW_BYTES, SPACE, Span, Window, too_long

_LOOK_AHEAD = 1 << 20
_STOP = re.compile(rb'[^"{}]*+(["{}])')
_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_OPENING = re.compile(rb'\{[ \t\r\n]*+"(?:[^"\\]|\\.)*+"[ \t\r\n]*+:', re.DOTALL)
_GAP = re.compile(rb"[ \t\r\n,]*+")
_QUOTE, _BACKSLASH, _OPEN = b'"\\{'


def array_spans(window: Window) -> Iterator[Span]:
    """Every object of the outermost array, and every stretch of bytes that is none.

    Args:
        window: Holds the array's opening bracket.
    """
    scan = _Scan(window)
    expected: bytes | None = b""  # separators before the next row; None after a fault: any
    while True:
        gap = scan.gap()
        at = window.start + scan.position
        byte = window.buffer[scan.position : scan.position + 1]
        if byte == b"{":
            if expected not in (None, gap):
                yield Span(
                    at, 0, f"found {gap!r} before byte {at}, expected '{(expected or b'').decode()}' between rows."
                )
            span = scan.row()
            yield span
            expected = b"," if span.fault is None else None
        elif byte and not scan.at_end():
            yield scan.junk(gap)
            expected = None
        else:
            if gap or not byte:
                yield Span(at, 0, f"found {gap!r} before byte {at}, expected ']'; the file may be cut short.")
            return
        if window.ended and scan.position == len(window.buffer) and expected is None:
            return  # the fault reached the end of the file


class _Scan:
    """Position in the window, and how rows begin."""

    def __init__(self, window: Window):
        self.window = window
        self.position = window.buffer.index(b"[") + 1
        self._opening: bytes | None = None
        self._is_confirmed = False

    def gap(self) -> bytes:
        """Pass white space and commas; returns the commas."""
        commas = b""
        while True:
            match = _GAP.match(self.window.buffer, self.position)
            assert match is not None
            commas += match.group().translate(None, SPACE)
            self.position = match.end()
            if self.position < len(self.window.buffer) or self.window.ended:
                return commas
            self.window.more(self.position)
            self.position = 0

    def at_end(self) -> bool:
        """Whether here is the closing bracket, with nothing but white space after it."""
        if self.window.buffer[self.position] != ord("]"):
            return False
        while not self.window.buffer[self.position + 1 :].strip(SPACE):
            if self.window.ended:
                return True
            self.window.more(self.position)
            self.position = 0
        return False

    def junk(self, gap: bytes) -> Span:
        """Pass what is neither row nor end, up to the next row."""
        offset = self.window.start + self.position
        found = self.window.buffer[self.position : self.position + 40]
        self.position = self.window.skip_to(self._opening or b"{", self.position)
        end = self.window.start + self.position
        found = gap + found[: end - offset].translate(None, SPACE)
        fault = f"found {found!r} before byte {end}, expected ','; rows must be the objects of one JSON array."
        return Span(offset, end - offset, fault)

    def row(self) -> Span:
        """The object that begins here, or a fault that reaches to the next row."""
        window, begin = self.window, self.position
        at, depth, searched = begin, 0, begin + 1
        while True:
            self._learn(begin)
            following = window.buffer.find(self._opening, searched) if self._opening else -1
            limit = following if following >= 0 else len(window.buffer)
            at, depth = _walk(window.buffer, at, depth, limit)
            if depth == 0 and at > begin:
                return self._closed(begin, at)
            if following >= 0:
                return self._overrun(begin, at, depth, following)
            if len(window.buffer) - begin > MAX_ROW_BYTES:
                return self._endless(begin)
            searched = max(begin + 1, len(window.buffer) - len(self._opening or b""))
            is_cut = not window.more(begin)
            at, searched, begin = at - begin, searched - begin, 0
            if is_cut:
                return self._cut()

    def _learn(self, begin: int) -> None:
        if not self._is_confirmed and (match := _OPENING.match(self.window.buffer, begin)):
            self._opening = match.group()

    def _closed(self, begin: int, end: int) -> Span:
        self._is_confirmed = self._opening is not None
        self.position = end
        offset, size = self.window.start + begin, end - begin
        return Span(offset, size, too_long(offset, size) if size > MAX_ROW_BYTES else None)

    def _overrun(self, begin: int, at: int, depth: int, following: int) -> Span:
        """A row that is still open where another begins: sound if that one is inside it and both are closed."""
        window = self.window
        while len(window.buffer) < following + _LOOK_AHEAD and not window.ended:
            window.more(begin)
            at, following, begin = at - begin, following - begin, 0
        end, depth = _walk(window.buffer, at, depth, min(len(window.buffer), following + _LOOK_AHEAD))
        if depth == 0 and _is_json(window.buffer[begin:end]):
            return self._closed(begin, end)
        offset, following_offset = window.start + begin, window.start + following
        self.position = following
        return Span(
            offset,
            len(window.buffer[begin:following].rstrip(SPACE + b",")),
            f"the row that begins at byte {offset} is not closed where the next begins, at byte {following_offset}; "
            "repair or remove it.",
        )

    def _endless(self, begin: int) -> Span:
        window, offset = self.window, self.window.start + begin
        self.position = window.skip_to(self._opening or b"\0", begin + 1)  # JSON holds no zero byte: to the end
        size = window.start + self.position - offset
        return Span(offset, size, too_long(offset, size))

    def _cut(self) -> Span:
        """Called at the end of the file, when the buffer begins with the row."""
        self.position = len(self.window.buffer)
        return Span(
            self.window.start,
            self.position,
            f"the file ends in the middle of the row that begins at byte {self.window.start}; it is cut short, fetch "
            "it again.",
        )


def _walk(buffer: bytes, position: int, depth: int, limit: int) -> tuple[int, int]:
    """Count braces from `position` on, until the object is closed or nothing whole is left before `limit`.

    Returns:
        Where to go on (after the closing brace, or at a string that is not whole), and the depth there.
    """
    while match := _STOP.match(buffer, position, limit):
        position = match.end()
        byte = buffer[position - 1]
        if byte == _OPEN:
            depth += 1
        elif byte == _QUOTE:
            end = buffer.find(b'"', position, limit) + 1
            if buffer[end - 2] == _BACKSLASH:  # perhaps escaped: look at the whole string
                end = match.end() if (match := _STRING.match(buffer, position, limit)) else 0
            if end == 0:
                return position - 1, depth
            position = end
        else:
            depth -= 1
            if depth <= 0:
                return position, 0
    return max(position, limit), depth  # the opening at `limit` may have been passed before it was whole


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True

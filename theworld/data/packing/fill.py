"""Which samples share a row, so that rows are full: constrained by tokens and, if asked for, by images.

Rows are filled one at a time from the next `POOL` samples in order. A row begins with the sample that has waited
longest, so none waits for long. While there is room for several more, the next in order follows. The last two are
chosen by size: one so that it leaves as much room as it takes, the other as large as fits. With lengths as alike as
OSD's (4,300 to 5,200 tokens) this keeps two long samples from meeting where a third would have fitted.

Where samples draw their lengths, few of them are alike (300 beside 5,000), and the short ones must be kept for the gaps
that the long ones leave: then the longest of every `POOL` goes first, into the fullest row that has room.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]

POOL = 1024
"""Samples among which a row's last ones are chosen; more fill no better, fewer less well."""

_CHOSEN = 2
"""How many samples at the end of a row are chosen by size rather than by order."""

_BITS = 32
_PLACE = (1 << _BITS) - 1


def pack_rows(
    sizes: _Ints, images: _Ints | None = None, *, budget: int, max_images: int | None = None
) -> tuple[_Ints, _Ints]:
    """Pack every sample into rows of at most `budget` tokens and `max_images` images.

    Args:
        sizes: int64[S], tokens of each sample in the order in which they come; 1 to `budget` each.
        images: int64[S], images of each sample, at most `max_images` each; needed with `max_images`.
        budget: Tokens of a row.
        max_images: Images of a row; None for any number.

    Returns:
        int64[S], places in `sizes` in the order of rows; and int64[R + 1], where each row begins in it (last: S).
    """
    waiting = _Waiting(sizes, None if max_images is None else images)
    order: list[int] = []
    starts = [0]
    while (place := waiting.oldest()) is not None:
        room, image_room = budget, max_images or 0
        while place is not None:
            room -= waiting.sizes[place]
            image_room -= waiting.images[place]
            order.append(place)
            place = waiting.next_for(room, image_room)
        starts.append(len(order))
    return np.array(order, dtype=np.int64), np.array(starts, dtype=np.int64)


def pack_unlike_rows(sizes: _Ints, images: _Ints, *, budget: int, max_images: int | None = None) -> tuple[_Ints, _Ints]:
    """As `pack_rows`, for lengths of which some are many times as long as others: best fit, the longest first.

    Every `POOL` samples are packed among themselves. Rows come in the order of their earliest samples, and samples of a
    row in theirs, so that rows of one sample each are in the order that they have in `pack_rows`.
    """
    order: list[int] = []
    starts = [0]
    for first in range(0, len(sizes), POOL):
        here = slice(first, first + POOL)
        for row in sorted(_best_fit(sizes[here], images[here], budget, max_images)):
            order += [first + place for place in row]
            starts.append(len(order))
    return np.array(order, dtype=np.int64), np.array(starts, dtype=np.int64)


def _best_fit(sizes: _Ints, images: _Ints, budget: int, max_images: int | None) -> list[list[int]]:
    """Places in rows, each in ascending order."""
    rows: list[list[int]] = []
    image_rooms: list[int] = []
    rooms: list[tuple[int, int]] = []  # tokens that a row has room for, and its number; ascending
    for place in np.argsort(-sizes, kind="stable").tolist():
        size, shown = int(sizes[place]), int(images[place])
        at = bisect_left(rooms, (size, -1))
        while max_images is not None and at < len(rooms) and image_rooms[rooms[at][1]] < shown:
            at += 1
        if at == len(rooms):
            rooms.append((budget, len(rows)))  # more than any other has
            rows.append([])
            image_rooms.append(max_images or 0)
        room, number = rooms.pop(at)
        insort(rows[number], place)
        image_rooms[number] -= shown
        insort(rooms, (room - size, number))
    return rows


def split_rows(starts: _Ints, rows: int) -> _Ints:
    """Halve the rows with the most samples until there are `rows` of them.

    Args:
        starts: int64[R + 1], where each row begins, and the number of samples.
        rows: How many rows there should be: no fewer than there are, no more than samples.

    Returns:
        int64[rows + 1], the same with further beginnings.
    """
    while (missing := rows - (len(starts) - 1)) > 0:
        counts = np.diff(starts)
        longest = np.argsort(-counts, kind="stable")[:missing]
        longest = longest[counts[longest] > 1]
        starts = np.sort(np.concatenate([starts, starts[longest] + counts[longest] // 2]))
    return starts


class _Waiting:
    """The samples that are not packed yet, of which the first `POOL` in order can be chosen.

    Args:
        sizes: int64[S], tokens.
        images: int64[S], images; None when they do not matter.
    """

    def __init__(self, sizes: _Ints, images: _Ints | None):
        self.sizes: list[int] = sizes.tolist()
        self.images: list[int] = [0] * len(sizes) if images is None else images.tolist()
        self._mean_size = float(sizes.mean())
        self._mean_images = 0.0 if images is None else float(images.mean())
        self._keys: list[int] = ((sizes << _BITS) | np.arange(len(sizes))).tolist()  # sort by size, then by order
        self._pools: dict[int, list[int]] = {count: [] for count in sorted(set(self.images))}
        self._is_packed = bytearray(len(sizes))
        self._pooled = 0
        self._arrived = 0
        self._first = 0
        self._scan = 0

    def oldest(self) -> int | None:
        """Take the sample that has waited longest, and let as many come as have gone."""
        while self._arrived < len(self._keys) and self._pooled < POOL:
            insort(self._pools[self.images[self._arrived]], self._keys[self._arrived])
            self._pooled += 1
            self._arrived += 1
        self._first = self._scan = self._skip(self._first)
        return self._take(self._keys[self._first]) if self._first < self._arrived else None

    def next_for(self, room: int, image_room: int) -> int | None:
        """Take the sample that goes next into a row with so much room; None if no waiting one fits."""
        more = room / self._mean_size
        if self._mean_images:
            more = min(more, image_room / self._mean_images)
        several = int(more + 0.5)
        if several > _CHOSEN:
            self._scan = self._skip(self._scan)
            if self._scan < self._arrived:
                place = self._scan
                if self.sizes[place] <= room and self.images[place] <= image_room:
                    return self._take(self._keys[place])
        key = self._largest(room // several, image_room) if several > 1 else None
        key = self._largest(room, image_room) if key is None else key
        return None if key is None else self._take(key)

    def _largest(self, room: int, image_room: int) -> int | None:
        """Key of the largest sample that fits, the oldest of these."""
        best, best_size = None, 0
        for count, pool in self._pools.items():
            if count > image_room:
                break
            above = bisect_left(pool, (room + 1) << _BITS)
            if above and (size := pool[above - 1] >> _BITS) > best_size:
                best, best_size = pool[bisect_left(pool, size << _BITS)], size
        return best

    def _take(self, key: int) -> int:
        place = key & _PLACE
        pool = self._pools[self.images[place]]
        del pool[bisect_left(pool, key)]
        self._is_packed[place] = 1
        self._pooled -= 1
        return place

    def _skip(self, place: int) -> int:
        """The first place from `place` on that is not packed."""
        found = self._is_packed.find(0, place)
        return found if found >= 0 else len(self._is_packed)

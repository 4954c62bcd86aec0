"""Where the rows of a sharded index lie: which shard, and from which byte to which.

A writer plans this before it writes a byte, a reader and the check of shards ask for it.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from theworld.data.indexing.index import Index
from theworld.data.indexing.table import SourceFile
from theworld.data.shards.tar_member import BLOCK, Member, check_shard_name, member_names, padded

_END = 2 * BLOCK
"""A tar ends in two blocks of zeros, filled up to whole records."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COLUMNS = ("shard", "offset", "size", "image_offset", "image_bytes")


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """Where rows are to be written, from their sizes alone.

    Attributes:
        shard: int64[R], number of the shard, -1 for a row without an image.
        image_offset: int64[R], first byte of the image's contents in its shard, -1 for a row without one.
        row_offset: int64[R], first byte of the JSON's contents in its shard, -1 for a row without an image.
        shard_bytes: int64[S], size of every shard.
    """

    shard: NDArray[np.int64]
    image_offset: NDArray[np.int64]
    row_offset: NDArray[np.int64]
    shard_bytes: NDArray[np.int64]

    def rows(self, shard: int) -> NDArray[np.int64]:
        """Row numbers of a shard, in the order of their bytes."""
        return np.flatnonzero(self.shard == shard)


def plan_shards(index: Index, *, shard_bytes: int) -> ShardPlan:
    """Fill shards with the rows that have an image, in their order.

    Args:
        index: Gives sizes.
        shard_bytes: Most bytes of a shard; a row that is larger by itself gets one of its own.
    """
    size, image_bytes = index.column("size"), index.column("image_bytes")
    written = np.flatnonzero(has_image(index))
    image_end = BLOCK + padded(image_bytes[written])
    ends = np.cumsum(image_end + BLOCK + padded(size[written]))  # of each row, were all of them in one tar
    shard = np.full(len(size), -1, dtype=np.int64)
    image_offset, row_offset = shard.copy(), shard.copy()
    sizes: list[int] = []
    first, begin = 0, 0
    while first < len(written):
        after = max(first + 1, int(np.searchsorted(ends, begin + shard_bytes - tarfile.RECORDSIZE, side="right")))
        rows = written[first:after]
        starts = np.concatenate([[begin], ends[first : after - 1]]) - begin
        shard[rows] = len(sizes)
        image_offset[rows] = starts + BLOCK
        row_offset[rows] = starts + image_end[first:after] + BLOCK
        content = int(ends[after - 1]) - begin
        sizes.append(-(-(content + _END) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE)
        first, begin = after, int(ends[after - 1])
    return ShardPlan(
        shard=shard, image_offset=image_offset, row_offset=row_offset, shard_bytes=np.array(sizes, dtype=np.int64)
    )


def has_image(index: Index) -> NDArray[np.bool_]:
    """bool[R]: the row's image was found when it was indexed, so that the row is written, whatever its verdict."""
    found = pc.and_(pc.not_equal(index.table["image"], ""), pc.not_equal(index.table["image_sha256"], ""))
    return found.to_numpy(zero_copy_only=False)


class ShardLayout:
    """The places of an index's rows, and its shards.

    Args:
        index: Made by `theworld.data.shards.writer.write_shards`.

    Attributes:
        index: The same.
        shards: Its header's.
        row_crc32: int64[R], checksum of each row's JSON.

    Raises:
        ValueError: It has no shards, one of them is not named by a plain file name, or a row lies outside its shard.
    """

    def __init__(self, index: Index):
        if not index.header.shards:
            raise ValueError(
                f"{index.name}: the index describes no shards; make them with `theworld data shard` and use the "
                "index.parquet beside them."
            )
        for shard in index.header.shards:
            check_shard_name(shard.name)
            if not _SHA256.fullmatch(shard.sha256):
                raise ValueError(f"{index.name}: {shard.name} has sha256 {shard.sha256!r}, expected 64 hex digits.")
        self.index = index
        self.shards = index.header.shards
        self.row_crc32 = index.column("row_crc32")
        self._places = {name: index.column(name) for name in _COLUMNS}
        self._check_places()

    def shard(self, row: int) -> SourceFile:
        """The shard that holds a row.

        Raises:
            ValueError: None does.
        """
        number = int(self._places["shard"][row])
        if number < 0:
            raise ValueError(
                f"is in no shard, for it had no image when the shards were written "
                f"(verdict {self.index.text('verdict', row)!r})."
            )
        return self.shards[number]

    def rows(self, shard: int) -> NDArray[np.int64]:
        """Row numbers of a shard, in the order of their bytes."""
        rows = np.flatnonzero(self._places["shard"] == shard)
        return rows[np.argsort(self._places["image_offset"][rows], kind="stable")]

    def image(self, row: int) -> Member:
        """Where the image of a row lies."""
        return self._member(row, 0, "image_offset", "image_bytes")

    def json(self, row: int) -> Member:
        """Where the JSON of a row lies."""
        return self._member(row, 1, "offset", "size")

    def _member(self, row: int, which: int, offset: str, size: str) -> Member:
        name = member_names(row, self.index.text("image", row))[which]
        return Member(name=name, offset=int(self._places[offset][row]), size=int(self._places[size][row]))

    def _check_places(self) -> None:
        rows = np.flatnonzero(self._places["shard"] >= 0)
        shard = self._places["shard"][rows]
        sizes = np.array([shard.bytes for shard in self.shards], dtype=np.int64)
        bad = shard >= len(sizes)
        for offset, size in (("offset", "size"), ("image_offset", "image_bytes")):
            first, length = self._places[offset][rows], self._places[size][rows]
            bad |= (first < BLOCK) | (length < 0) | (first + length > sizes[np.minimum(shard, len(sizes) - 1)])
        if bad.any():
            row = int(rows[np.flatnonzero(bad)[0]])
            raise ValueError(
                f"{self.index.name}, row {row}, id {self.index.text('id', row)!r}: lies outside its shard; "
                "the index is damaged, fetch it again or write the shards again."
            )

"""Reading shards from end to end, and naming every row that cannot be had from them.

A reader of tars that meets a damaged header or a cut file may end early without a word; here the index says what must
be there, so what is not is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from theworld.data.indexing.index import Index
from theworld.data.indexing.table import SourceFile
from theworld.data.shards.layout import ShardLayout
from theworld.data.shards.remote import ByteSource, open_bytes
from theworld.data.shards.tar_member import Member, check_image, check_row
from theworld.data.shards.writer import byte_bar

_CHUNK = 8 << 20


@dataclass(frozen=True, kw_only=True)
class LostRow:
    """A row that a shard should hold and does not, or not as it was written.

    Attributes:
        row: Row number in the source.
        id: The row's id.
        shard: Name of the shard.
        reason: `missing shard`, `truncated`, `bad header`, `unsafe member`, `damaged image` or `damaged row`, a colon,
            and what was found.
    """

    row: int
    id: str
    shard: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What `check_shards` found.

    Attributes:
        rows: Rows that the shards should hold.
        lost: Those that they do not, in file order.
        faults: Shards that are not as they were written, one line each, whether or not a row is lost with it.
    """

    rows: int
    lost: tuple[LostRow, ...]
    faults: tuple[str, ...]

    @property
    def is_intact(self) -> bool:
        """Every byte is as it was written."""
        return not self.lost and not self.faults

    def summary(self) -> str:
        """Counts, then a line for every fault and every lost row."""
        lines = [f"{self.rows} rows in shards, {self.rows - len(self.lost)} intact, {len(self.lost)} lost"]
        lines += self.faults
        lines += [f"lost: row {lost.row}, id {lost.id!r}, {lost.shard}: {lost.reason}" for lost in self.lost]
        return "\n".join(lines)


def check_shards(index: Index, root: str | Path, *, progress: bool = True) -> ShardReport:
    """Read all shards once, without a cache, and compare every byte with what the index says.

    Args:
        index: Of the shards.
        root: Folder or URL that holds them.
        progress: Show a progress bar.

    Raises:
        ValueError: The index has no shards, or the folder does not exist.
        OSError: A shard of a URL cannot be reached, which is not the same as lost.
    """
    layout, source = ShardLayout(index), open_bytes(root)
    lost: list[LostRow] = []
    faults: list[str] = []
    rows = 0
    with byte_bar("checking shards", sum(shard.bytes for shard in layout.shards), shown=progress) as advance:
        for number, shard in enumerate(layout.shards):
            reader = _ShardReader(source, shard, advance)
            for row in layout.rows(number).tolist():
                rows += 1
                try:
                    _check_row(reader, layout, row)
                except ValueError as error:
                    lost.append(LostRow(row=row, id=index.text("id", row), shard=shard.name, reason=str(error)))
            if fault := reader.fault():
                faults.append(f"{shard.name}: {fault}; fetch it again, or write it again from the source")
    return ShardReport(rows=rows, lost=tuple(sorted(lost, key=lambda row: row.row)), faults=tuple(faults))


def _check_row(reader: _ShardReader, layout: ShardLayout, row: int) -> None:
    """Both members of a row.

    Raises:
        ValueError: One is not as it was written.
    """
    index = layout.index
    image = reader.contents(layout.image(row))
    json = reader.contents(layout.json(row))
    check_image(image, index.text("image_sha256", row))
    check_row(json, int(layout.row_crc32[row]))


class _ShardReader:
    """One shard from its first byte to its last, hashed on the way; members must be asked for in their order.

    Args:
        source: Where the shard is.
        shard: What it should be.
        advance: Told of every number of bytes read.
    """

    def __init__(self, source: ByteSource, shard: SourceFile, advance: Callable[[int], None]):
        self.source = source
        self.shard = shard
        self.advance = advance
        try:
            self.size: int | None = source.size(shard)
        except FileNotFoundError:
            self.size = None
        self._digest = hashlib.sha256()
        self._kept = b""  # the end of what was read
        self._position = 0

    def contents(self, member: Member) -> bytes:
        """A member's contents.

        Raises:
            ValueError: The shard ends before, or holds something else there.
        """
        end = member.offset + member.size
        if self.size is None:
            raise ValueError(f"missing shard: {self.source.name} has no {self.shard.name}.")
        if end > self.size:
            raise ValueError(f"truncated: the shard ends at byte {self.size}, {member.name} at byte {end}.")
        begin = self._position - len(self._kept)
        if member.start < begin:
            raise ValueError(f"bad header: {member.name} overlaps the member before; the index is damaged.")
        if end > self._position:
            self._kept = self._kept[member.start - begin :]
            while self._position < end:
                self._kept += self._next()
            begin = self._position - len(self._kept)
        return member.contents(self._kept[member.start - begin : end - begin])

    def fault(self) -> str | None:
        """What is wrong with the shard as a whole, after the rest of it was read; None if it is as it was written."""
        if self.size is None:
            return "missing"
        if self.size != self.shard.bytes:
            return f"found {self.size} bytes, expected {self.shard.bytes}"
        while self._position < self.size:
            self._next()
        if (sha256 := self._digest.hexdigest()) != self.shard.sha256:
            return f"found sha256 {sha256[:12]}..., expected {self.shard.sha256[:12]}..."
        return None

    def _next(self) -> bytes:
        assert self.size is not None
        chunk = self.source.read(self.shard, self._position, min(_CHUNK, self.size - self._position))
        self._digest.update(chunk)
        self._position += len(chunk)
        self.advance(len(chunk))
        return chunk

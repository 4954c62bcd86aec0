"""Rows and images out of tar shards, in a folder or behind a URL, each checked before it is believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from theworld.data.indexing.index import Index
from theworld.data.indexing.table import SourceFile
from theworld.data.shards.layout import ShardLayout
from theworld.data.shards.node_cache import CACHE_BYTES, CACHE_FOLDER, CachedBytes, NodeCache
from theworld.data.shards.remote import ByteSource, RemoteBytes, open_bytes
from theworld.data.shards.tar_member import BLOCK, Member, check_image, check_row
from theworld.data.stores import FolderStore, RowStore


class ShardStore:
    """The `RowStore` of an index that `write_shards` made.

    A member's tar header is read along with its contents, and both must be what the index says: an image by its
    sha256, a row by its checksum. What proves wrong in the node cache is dropped there and read once more from afar.

    Args:
        index: Of the shards.
        root: Folder or URL that holds them.
        cache_dir: Folder of the node cache, on a local disk; used for a URL only.
        cache_bytes: What the cache may take.

    Raises:
        ValueError: The index has no shards, or a local shard (of a URL, the first one) is not of its size.
        OSError: Such a shard is missing or cannot be reached.
    """

    def __init__(
        self,
        index: Index,
        root: str | Path,
        *,
        cache_dir: str | Path = CACHE_FOLDER,
        cache_bytes: int = CACHE_BYTES,
    ):
        self.index = index
        self._layout = ShardLayout(index)
        source = open_bytes(root)
        self._cached: CachedBytes | None = None
        if isinstance(source, RemoteBytes):
            self._cached = CachedBytes(source, NodeCache(cache_dir, max_bytes=cache_bytes))
        self._source = self._cached or source
        # Asking for every size would take minutes far away; there, the first one tells whether the URL is right.
        for shard in index.header.shards[: 1 if self._cached else None]:
            if (found := source.size(shard)) != shard.bytes:
                raise ValueError(
                    f"{source.name}/{shard.name}: found {found} bytes, expected {shard.bytes}; "
                    "it is cut short or belongs to another index, fetch it again."
                )

    @property
    def name(self) -> str:
        """Folder or URL of the shards."""
        return self._source.name

    def row_bytes(self, number: int) -> bytes:
        """JSON of row `number` of the source.

        Raises:
            ValueError: The row is in no shard, or its bytes are not those that were written.
            OSError: They cannot be reached.
        """
        crc32 = int(self._layout.row_crc32[number])
        return self._read(number, self._layout.json, lambda row: check_row(row, crc32))

    def image_bytes(self, number: int) -> bytes:
        """The encoded image of row `number`.

        Raises:
            ValueError: The row is in no shard, or its image is not the one that was indexed.
            OSError: It cannot be reached.
        """
        sha256 = self.index.text("image_sha256", number)
        return self._read(number, self._layout.image, lambda image: check_image(image, sha256))

    def _read(self, number: int, member: Callable[[int], Member], check: Callable[[bytes], None]) -> bytes:
        """A member's contents, checked; if what the cache gave is wrong, once more without it."""
        where = f"{self.name}, row {number}, id {self.index.text('id', number)!r}"
        try:
            shard = self._layout.shard(number)
            where += f", {shard.name}"
            try:
                return _checked(self._source, shard, member(number), check)
            except ValueError:
                if self._cached is None:
                    raise
                self._cached.forget(shard, member(number).start, BLOCK + member(number).size)
                return _checked(self._cached.source, shard, member(number), check)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        except OSError as error:
            raise OSError(f"{where}: {error}") from error


def _checked(source: ByteSource, shard: SourceFile, member: Member, check: Callable[[bytes], None]) -> bytes:
    found = member.contents(source.read(shard, member.start, BLOCK + member.size))
    check(found)
    return found


def open_store(index: Index, rows: str | None, images: str | None, shards: str | None) -> RowStore:
    """The store of an index, from a tool's flags.

    Args:
        index: Of the source.
        rows: The file that was indexed.
        images: The folder that was indexed.
        shards: Folder or URL of the tars, in place of the two.

    Raises:
        ValueError: Not exactly one of the two is given, or it is not what was indexed.
    """
    if shards is not None and rows is None and images is None:
        return ShardStore(index, shards)
    if shards is None and rows is not None and images is not None:
        return FolderStore(index, rows_path=Path(rows).expanduser(), image_folder=Path(images).expanduser())
    raise ValueError(f"found rows={rows!r}, images={images!r}, shards={shards!r}, expected rows and images, or shards.")

"""Blocks of remote shards, kept in files of this machine and shared by every process on it.

A block is one file: its bytes, a checksum of each of their pages, and one over name and checksums, so that a few bytes
are believed without reading all of them. It appears by a rename: a reader finds all of it or nothing, and one that
proves damaged is fetched again. The total stays within its bound at every moment: room is made, and counted, before a
block is written, by one process at a time. What was used longest ago goes first.
"""

from __future__ import annotations

import fcntl
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from theworld.data.indexing.table import SourceFile
from theworld.data.shards.remote import ByteSource

BLOCK_BYTES = 4 << 20
PAGE_BYTES = 64 << 10
CACHE_BYTES = 20 << 30
CACHE_FOLDER = "~/.cache/theworld/shards"

_SUM_BYTES = 4
_FETCHERS = 64
"""Lock files that processes about to fetch a block meet at; two blocks seldom share one."""
_FILLED = 0.9
"""Part of the bound that is filled after room was made, so that it is not made for every block."""
_POLL = 0.001


@dataclass(frozen=True, kw_only=True)
class Block:
    """One piece of a shard.

    Attributes:
        name: A plain file name that says which bytes it holds.
        size: How many.
    """

    name: str
    size: int

    @property
    def pages(self) -> int:
        """How many checksums its file has, besides the last."""
        return -(-self.size // PAGE_BYTES)

    @property
    def file_bytes(self) -> int:
        """Size of its file."""
        return self.size + _SUM_BYTES * (self.pages + 1)

    def file(self, content: bytes) -> bytes:
        """Its file."""
        pages = [content[start : start + PAGE_BYTES] for start in range(0, self.size, PAGE_BYTES)]
        sums = b"".join(_sum(page) for page in pages)
        return content + sums + _sum(self.name.encode() + sums)

    def read(self, descriptor: int, first: int, after: int) -> bytes | None:
        """Bytes `first` to `after` out of its open file; None if they, or the file, are not what was written."""
        sums = os.pread(descriptor, _SUM_BYTES * (self.pages + 1), self.size)
        if sums[-_SUM_BYTES:] != _sum(self.name.encode() + sums[:-_SUM_BYTES]):
            return None
        begin, end = first // PAGE_BYTES, -(-after // PAGE_BYTES)
        found = os.pread(descriptor, min(end * PAGE_BYTES, self.size) - begin * PAGE_BYTES, begin * PAGE_BYTES)
        for page in range(begin, end):
            content = found[(page - begin) * PAGE_BYTES : (page - begin + 1) * PAGE_BYTES]
            if _sum(content) != sums[page * _SUM_BYTES : (page + 1) * _SUM_BYTES]:
                return None
        return found[first - begin * PAGE_BYTES : after - begin * PAGE_BYTES]


class NodeCache:
    """A bounded folder of blocks.

    Args:
        folder: Where blocks are kept, on a local disk. Created, for this user alone, if it does not exist.
        max_bytes: What all blocks together may take.
        block_bytes: Bytes of a block, which is also what one request asks for.
        patience: Seconds to wait for another process: one that fetches the same block, or one that makes room. After
            that the block is fetched here too, or not kept.

    Raises:
        ValueError: `max_bytes` cannot hold a block.
    """

    def __init__(
        self,
        folder: str | Path = CACHE_FOLDER,
        *,
        max_bytes: int = CACHE_BYTES,
        block_bytes: int = BLOCK_BYTES,
        patience: float = 150.0,
    ):
        if block_bytes < 1 or max_bytes < Block(name="", size=block_bytes).file_bytes:
            raise ValueError(
                f"the cache of shards may take {max_bytes} bytes, expected room for at least one block of "
                f"{block_bytes} bytes and its checksums; raise cache_bytes."
            )
        self.folder = Path(folder).expanduser()
        self.max_bytes = max_bytes
        self.block_bytes = block_bytes
        self.patience = patience
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, block: Block, first: int, after: int, fetch: Callable[[], bytes]) -> bytes:
        """Some bytes of a block, out of its file if there is one; processes that want it wait for the first.

        Args:
            block: Which.
            first: First byte of it that is wanted.
            after: The byte after the last.
            fetch: Reads the whole block from afar; it is then kept.
        """
        found = self._find(block, first, after)
        if found is None:
            with self._locked(f"fetch-{zlib.crc32(block.name.encode()) % _FETCHERS:02d}.lock"):
                found = self._find(block, first, after)
                if found is None:
                    content = fetch()
                    self._keep(block, content)
                    found = content[first:after]
        return found

    def forget(self, block: Block) -> None:
        """Drop a block, whose checksums are right but whose contents proved wrong."""
        self._path(block).unlink(missing_ok=True)

    def used_bytes(self) -> int:
        """What all blocks take, counted file by file."""
        return sum(size for _, size, _ in self._blocks())

    def _path(self, block: Block) -> Path:
        return self.folder / f"{block.name}.block"

    def _find(self, block: Block, first: int, after: int) -> bytes | None:
        try:
            with self._path(block).open("rb", buffering=0) as file:
                found = block.read(file.fileno(), first, after)
                if found is not None:
                    os.utime(file.fileno())  # used now
                    return found
        except FileNotFoundError:
            return None
        self.forget(block)
        return None

    def _keep(self, block: Block, content: bytes) -> None:
        try:
            with self._locked("room.lock") as is_mine:
                if not is_mine:
                    raise TimeoutError(f"another process has been making room for {self.patience:.0f} s")
                self._make_room(block.file_bytes)
                draft = self.folder / "draft"  # only who holds the lock writes it; that of a killed process is replaced
                draft.write_bytes(block.file(content))
                os.replace(draft, self._path(block))
        except OSError as error:
            warnings.warn(f"{self.folder}: a block could not be kept ({error}); reading on without.", stacklevel=2)

    def _make_room(self, needed: int) -> None:
        """Count `needed` bytes as used, after dropping old blocks if they would not fit.

        The count is raised before a block is written and never lowered but by counting all files, so that whenever a
        process dies the count errs to the safe side.
        """
        counter = self.folder / "used_bytes"
        try:
            used = int(counter.read_text())
        except (FileNotFoundError, ValueError):
            used = self.max_bytes  # not known: count
        if used + needed > self.max_bytes:
            (self.folder / "draft").unlink(missing_ok=True)
            used = self._drop_oldest(max(0, int(_FILLED * self.max_bytes) - needed))
        counter.write_text(str(used + needed))

    def _drop_oldest(self, allowed: int) -> int:
        """Drop blocks until the rest takes at most `allowed` bytes; what the rest takes."""
        blocks = sorted(self._blocks())
        used = sum(size for _, size, _ in blocks)
        for _, size, path in blocks:
            if used <= allowed:
                break
            path.unlink(missing_ok=True)
            used -= size
        return used

    def _blocks(self) -> Iterator[tuple[int, int, Path]]:
        """(time of last use, bytes, file) of every block."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(".block"):
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # found damaged, and dropped, by a reader
                        continue
                    yield found.st_mtime_ns, found.st_size, Path(entry.path)

    @contextmanager
    def _locked(self, name: str) -> Iterator[bool]:
        """Hold a lock file, which the system frees when its holder dies; False if it was not to be had in time."""
        with (self.folder / name).open("a") as file:
            deadline = time.monotonic() + self.patience
            is_mine = _try_lock(file.fileno())
            while not is_mine and time.monotonic() < deadline:
                time.sleep(_POLL)
                is_mine = _try_lock(file.fileno())
            yield is_mine


class CachedBytes:
    """Shards that are read through a node cache.

    Blocks go by the shard's sha256, so shards of one name do not mix, nor do copies at two places count twice.

    Args:
        source: Where blocks come from.
        cache: Where they are kept.
    """

    def __init__(self, source: ByteSource, cache: NodeCache):
        self.source = source
        self.cache = cache

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    def size(self, shard: SourceFile) -> int:
        """Bytes that the shard has, asked of the source."""
        return self.source.size(shard)

    def read(self, shard: SourceFile, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on."""
        parts = []
        for start, block in self._blocks(shard, offset, size):
            first, after = max(offset - start, 0), min(offset + size - start, block.size)
            parts.append(self.cache.read(block, first, after, partial(self.source.read, shard, start, block.size)))
        return b"".join(parts)

    def forget(self, shard: SourceFile, offset: int, size: int) -> None:
        """Drop the blocks that hold these bytes, which proved wrong."""
        for _, block in self._blocks(shard, offset, size):
            self.cache.forget(block)

    def _blocks(self, shard: SourceFile, offset: int, size: int) -> Iterator[tuple[int, Block]]:
        """First byte and block, of every block that holds some of these bytes."""
        step = self.cache.block_bytes
        for number in range(offset // step, -(-(offset + size) // step)):
            name = f"{shard.sha256[:32]}-{step}-{number:06d}"
            yield number * step, Block(name=name, size=min(step, shard.bytes - number * step))


def _sum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_SUM_BYTES, "little")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Where the bytes of shards come from: a local folder, or an object store.

A folder is read by `pread`; a URL by ranged reads through fsspec, tried again for a bounded time.
"""

from __future__ import annotations

import os
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit

import fsspec
from aiohttp import ClientTimeout
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.http import HTTPFileSystem

from theworld.data.indexing.table import SourceFile
from theworld.data.shards.tar_member import check_shard_name

PROTOCOLS = ("http", "https", "s3", "gs", "gcs", "abfs", "az", "hf", "memory")
"""Kinds of URL that are read. fsspec knows more, some of which run code or chain to other URLs."""

MAX_OPEN_FILES = 64
_LONGEST_WAIT = 10.0
_TRY_AGAIN = (408, 425, 429)
_Answer = TypeVar("_Answer")


class ByteSource(Protocol):
    """Random access to the bytes of shards; safe to pickle and to fork."""

    @property
    def name(self) -> str:
        """Folder or URL, for messages."""

    def size(self, shard: SourceFile) -> int:
        """Bytes that the shard has.

        Raises:
            FileNotFoundError: It is not there.
            OSError: It cannot be reached.
        """

    def read(self, shard: SourceFile, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on.

        Raises:
            FileNotFoundError: The shard is not there.
            OSError: It cannot be reached.
            ValueError: It ends before.
        """


class FolderBytes:
    """Shards in a folder.

    Args:
        root: The folder.

    Raises:
        ValueError: It does not exist.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise ValueError(f"shard folder {self.root} does not exist; fetch the shards there or correct the path.")
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    def size(self, shard: SourceFile) -> int:
        """Bytes that the shard has."""
        return (self.root / check_shard_name(shard.name)).stat().st_size

    def read(self, shard: SourceFile, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on."""
        found = os.pread(self._file(shard.name).fileno(), size, offset)
        return _check_length(found, size, f"{self.name}/{shard.name}", offset)

    def _file(self, name: str) -> BinaryIO:
        if name not in self._files:
            self._files[name] = (self.root / check_shard_name(name)).open("rb", buffering=0)
            if len(self._files) > MAX_OPEN_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(name)
        return self._files[name]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_files": OrderedDict()}


class RemoteBytes:
    """Shards below a URL.

    Args:
        url: Of the folder, `http://`, `https://`, `s3://`, `gs://`, `abfs://`, `hf://` or `memory://`. Credentials come
            from where fsspec's file system of that kind looks for them.
        request_timeout: Seconds that one request may take.
        give_up_after: Seconds after which a read that keeps failing is an error.
        first_wait: Seconds before the second try; doubled with every further one.

    Raises:
        ValueError: Another kind of URL.
    """

    def __init__(
        self, url: str, *, request_timeout: float = 30.0, give_up_after: float = 120.0, first_wait: float = 0.5
    ):
        _check_url(url)
        self.url = url.rstrip("/")
        self.request_timeout = request_timeout
        self.give_up_after = give_up_after
        self.first_wait = first_wait
        self._opened: tuple[int, fsspec.AbstractFileSystem, str] | None = None

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    def size(self, shard: SourceFile) -> int:
        """Bytes that the shard has."""

        def ask() -> int:
            files, root = self._files()
            try:
                found = files.info(f"{root}/{check_shard_name(shard.name)}")["size"]
            except FileNotFoundError as error:
                # fsspec's HTTP files call every failure of this request "not found"; its cause tells which it was.
                raise (error.__cause__ if isinstance(files, HTTPFileSystem) else None) or error from None
            if found is None:
                raise ValueError("the server tells no size")
            return int(found)

        return self._retried(ask, f"{self.url}/{shard.name}, size")

    def read(self, shard: SourceFile, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on."""
        where = f"{self.url}/{shard.name}"
        found = self._retried(lambda: self._fetch(shard, offset, size), f"{where}, bytes {offset} to {offset + size}")
        return _check_length(found, size, where, offset)

    def _fetch(self, shard: SourceFile, offset: int, size: int) -> bytes:
        files, root = self._files()
        path = f"{root}/{check_shard_name(shard.name)}"
        if isinstance(files, HTTPFileSystem):
            # `cat_file` would load the whole shard from a server that ignores the range; a file object refuses.
            with files.open(path, size=shard.bytes, cache_type="none") as file:
                file.seek(offset)
                return file.read(size)
        limit = {"timeout": self.request_timeout} if isinstance(files, AsyncFileSystem) else {}
        return files.cat_file(path, start=offset, end=offset + size, **limit)

    def _files(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The file system and the root in it; each process its own, for its connections do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            options: dict[str, object] = {"skip_instance_cache": True}
            if self.url.startswith("http"):
                options["client_kwargs"] = {"timeout": ClientTimeout(total=self.request_timeout)}
            self._opened = (os.getpid(), *fsspec.url_to_fs(self.url, **options))
        return self._opened[1:]

    def _retried(self, ask: Callable[[], _Answer], what: str) -> _Answer:
        """Ask until there is an answer, or a failure that cannot pass, or the time is over."""
        started, wait, tries = time.monotonic(), self.first_wait, 0
        while True:
            tries += 1
            try:
                return ask()
            except Exception as error:  # each file system has its own; what is known to be final is not tried again
                waited = time.monotonic() - started
                if _is_missing(error):
                    raise FileNotFoundError(f"{what}: not found; correct the URL, or put the shard there.") from error
                if _is_final(error):
                    raise OSError(
                        f"{what}: cannot be read ({_short(error)}); correct the URL or the server."
                    ) from error
                if waited + wait > self.give_up_after:
                    raise OSError(
                        f"{what}: cannot be read, {tries} tries in {waited:.1f} s, the last: {_short(error)}; "
                        "check the network and the server, then resume."
                    ) from error
            time.sleep(wait * random.SystemRandom().uniform(0.5, 1.0))  # apart, when many readers met the same failure
            wait = min(2 * wait, _LONGEST_WAIT)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_opened": None}


def open_bytes(root: str | Path) -> FolderBytes | RemoteBytes:
    """The shards of a folder or a URL.

    Raises:
        ValueError: No such folder, or a kind of URL that is not read.
    """
    return RemoteBytes(str(root)) if "://" in str(root) else FolderBytes(root)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in PROTOCOLS or "::" in url or parts.query or parts.fragment:
        raise ValueError(
            f"shards at {url.partition('?')[0]!r}: expected a folder or a plain URL of {', '.join(PROTOCOLS)}, "
            "without query; give the folder that holds the shards."
        )
    if parts.password is not None:
        raise ValueError(
            f"the URL of shards at {parts.hostname} holds a password, which configs and messages would repeat; "
            "leave it out and use the environment or a credentials file."
        )


def _check_length(found: bytes, size: int, where: str, offset: int) -> bytes:
    if len(found) != size:
        raise ValueError(
            f"{where}: found {len(found)} bytes from byte {offset} on, expected {size}; "
            "the shard is cut short or is another file, fetch it again."
        )
    return found


def _is_missing(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or getattr(error, "status", None) in (404, 410)


def _is_final(error: Exception) -> bool:
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status not in _TRY_AGAIN
    return isinstance(error, (PermissionError, ValueError, TypeError, ImportError))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300].removesuffix(": ")

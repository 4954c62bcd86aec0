"""One member of a shard: its name, where it lies, and the one header it may have.

A shard is a plain tar in WebDataset's layout: for each row `<key>.<extension of the image>` and `<key>.json`, one after
the other. Everything in a header follows from name and size, so that equal rows give equal shards, and so that a
reader who knows both can refuse any other header: a damaged one, a link, or a path that leads elsewhere.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

BLOCK = tarfile.BLOCKSIZE
"""A header's size; contents are filled up to a multiple of it."""

_Size = TypeVar("_Size", int, NDArray[np.int64])
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.tar")
_EXTENSION = re.compile(r"\.[a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file in a tar.

    Attributes:
        name: Its name.
        offset: First byte of its contents in the tar; its header is the 512 bytes before.
        size: Bytes of its contents.
    """

    name: str
    offset: int
    size: int

    @property
    def start(self) -> int:
        """First byte of its header."""
        return self.offset - BLOCK

    @property
    def end(self) -> int:
        """The byte after the zeros that fill it up, where the next member begins."""
        return self.offset + padded(self.size)

    def contents(self, found: bytes) -> bytes:
        """Header and contents as read, to contents.

        Args:
            found: Bytes `start` to `offset + size` of the tar.

        Raises:
            ValueError: Beginning with `bad header` or `unsafe member`: what was found in place of its header.
        """
        check_header(found[:BLOCK], self.name, self.size)
        return found[BLOCK : BLOCK + self.size]


def member_names(row: int, image: str) -> tuple[str, str]:
    """Names of a row's two members, image and JSON.

    Args:
        row: Row number in the source.
        image: The image's path below the image folder, of which the extension is kept, in lower case.

    Raises:
        ValueError: The image has no extension of letters and digits.
    """
    extension = PurePosixPath(image).suffix.lower()
    if not _EXTENSION.fullmatch(extension) or extension == ".json":
        raise ValueError(f"image {image!r} ends in {extension!r}, expected an image's extension; rename the file.")
    return f"{row:09d}{extension}", f"{row:09d}.json"


def padded(size: _Size) -> _Size:
    """Bytes that contents of `size` bytes take in a tar; of a number, or of int64[R]."""
    return -(-size // BLOCK) * BLOCK


def member_header(name: str, size: int) -> bytes:
    """The 512 bytes before a member's contents: a regular file of nobody, made at no time, for all to read."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT)


def check_header(found: bytes, name: str, size: int) -> None:
    """Refuse every header but the one that `member_header` writes.

    Raises:
        ValueError: Beginning with `bad header` or `unsafe member`: what was found in its place.
    """
    if found == member_header(name, size):
        return
    try:
        member = tarfile.TarInfo.frombuf(found, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ValueError(
            f"bad header: the 512 bytes before {name} are no tar header ({error}); other tools lose what follows."
        ) from error
    if not member.isreg():
        raise ValueError(f"unsafe member: {member.name!r} is a {_kind(member)}, expected the regular file {name}.")
    if member.name != name:
        raise ValueError(f"unsafe member: found {member.name!r}, expected {name}.")
    raise ValueError(
        f"bad header: {name} with {member.size} bytes, mode {member.mode:o}, owner {member.uid}, time {member.mtime}; "
        f"expected {size} bytes and what `theworld data shard` writes."
    )


def check_image(found: bytes, sha256: str) -> None:
    """Refuse an image other than the one that was indexed.

    Raises:
        ValueError: Beginning with `damaged image`.
    """
    if (digest := hashlib.sha256(found).hexdigest()) != sha256:
        raise ValueError(
            f"damaged image: found sha256 {digest[:12]}..., expected {sha256[:12]}... of the index; "
            "fetch the shard again."
        )


def check_row(found: bytes, crc32: int) -> None:
    """Refuse a row's JSON other than the one that was written.

    Raises:
        ValueError: Beginning with `damaged row`.
    """
    if (checksum := zlib.crc32(found)) != crc32:
        raise ValueError(
            f"damaged row: its JSON has checksum {checksum:08x}, expected {crc32:08x} of the index; "
            "fetch the shard again."
        )


def check_shard_name(name: str) -> str:
    """The name itself, if it is a plain file name that cannot lead out of the folder.

    Raises:
        ValueError: It has a separator, begins with a dot, or does not end in `.tar`.
    """
    if not _SHARD_NAME.fullmatch(name):
        raise ValueError(f"shard name {name!r} is not a plain file name such as 'shard-000000.tar'; refused.")
    return name


def _kind(member: tarfile.TarInfo) -> str:
    kinds = {"issym": "symbolic link", "islnk": "hard link", "isdir": "folder", "isdev": "device or pipe"}
    return next((text for check, text in kinds.items() if getattr(member, check)()), f"member of type {member.type!r}")

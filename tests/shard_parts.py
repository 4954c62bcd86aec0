"""A source of rows and images in memory, its index, to write shards from; and what can happen to a shard."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from theworld.data.indexing.index import Index
from theworld.data.indexing.table import SCHEMA, IndexHeader, IndexSettings, SourceFile

EXTENSIONS = (".jpg", ".png", ".JPEG", ".webp")


class MemoryStore:
    """Rows and images by number; a `RowStore`."""

    name = "memory"

    def __init__(self, rows: Sequence[bytes], images: Sequence[bytes]):
        self.rows = list(rows)
        self.images = list(images)

    def row_bytes(self, number: int) -> bytes:
        return self.rows[number]

    def image_bytes(self, number: int) -> bytes:
        return self.images[number]


def make_source(count: int = 20, *, without_image: Sequence[int] = (), image_bytes: int = 9000) -> MemoryStore:
    """`count` rows of some 80 bytes, and images of up to `image_bytes` random bytes, which shards never look into."""
    random = np.random.default_rng(3)
    rows = [json.dumps({"id": f"row-{i}", "text": "é" * int(random.integers(1, 40))}).encode() for i in range(count)]
    images = [random.bytes(int(random.integers(1, image_bytes))) for _ in range(count)]
    return MemoryStore(rows, [b"" if i in without_image else image for i, image in enumerate(images)])


def index_of(store: MemoryStore) -> Index:
    """The index of a source; a row whose image is empty has none."""
    found = [bool(image) for image in store.images]
    count = len(found)
    columns: dict[str, object] = {name: np.zeros(count, dtype=np.int64) for name in SCHEMA.names}
    columns |= {
        "id": [f"row-{i}" for i in range(count)],
        "size": [len(row) for row in store.rows],
        "row_crc32": [zlib.crc32(row) for row in store.rows],
        "image": [f"photos/{i}{EXTENSIONS[i % len(EXTENSIONS)]}" if found[i] else "" for i in range(count)],
        "image_bytes": [len(image) for image in store.images],
        "image_sha256": [hashlib.sha256(image).hexdigest() if image else "" for image in store.images],
        "verdict": ["ok" if has else "missing image: none" for has in found],
        "shard": np.full(count, -1),
        "image_offset": np.full(count, -1),
    }
    table = pa.table({name: pa.array(columns[name]).cast(SCHEMA.field(name).type) for name in SCHEMA.names})
    settings = IndexSettings(
        max_seq_length=100,
        region_style="box",
        num_image_tokens=4,
        num_world_tokens=5,
        world_image_size=16,
        enable_world=True,
    )
    source = SourceFile(name="rows.json", bytes=1, sha256=hashlib.sha256(b"".join(store.rows)).hexdigest())
    header = IndexHeader(
        row_format="osd", source=source, tokenizer_sha256="0" * 64, settings=settings, package_version="0"
    )
    return Index(name="rows", header=header, table=table)


def edit(folder: Path, index: Index, row: int, change: Callable[[bytearray, int, int, int], None]) -> None:
    """Change a row's shard with `change(content, image_offset, image_bytes, row_offset)`."""
    path = folder / index.header.shards[index.column("shard")[row]].name
    content = bytearray(path.read_bytes())
    change(content, *(int(index.column(name)[row]) for name in ("image_offset", "image_bytes", "offset")))
    path.write_bytes(content)


def _member(name: str, size: int, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, link
    return member.tobuf(tarfile.USTAR_FORMAT)


def _flip_image(content: bytearray, image: int, size: int, row: int) -> None:
    content[image + size // 2] ^= 1


def _flip_row(content: bytearray, image: int, size: int, row: int) -> None:
    content[row + 9] ^= 1  # in the id: still valid JSON


def _flip_header(content: bytearray, image: int, size: int, row: int) -> None:
    content[image - 512 + 20] ^= 1


def _climb(content: bytearray, image: int, size: int, row: int) -> None:
    content[image - 512 : image] = _member("../evil.png", size)


def _absolute(content: bytearray, image: int, size: int, row: int) -> None:
    content[image - 512 : image] = _member("/etc/evil.png", size)


def _link(content: bytearray, image: int, size: int, row: int) -> None:
    content[image - 512 : image] = _member("000000013.png", 0, tarfile.SYMTYPE, "/etc/passwd")


FAULTS: dict[str, tuple[Callable[[bytearray, int, int, int], None], str]] = {
    "flipped byte in the image": (_flip_image, "damaged image: found sha256"),
    "flipped byte in the row": (_flip_row, "damaged row: its JSON has checksum"),
    "flipped byte in the header": (_flip_header, "bad header: the 512 bytes before 000000013.png are no tar header"),
    "member ../": (_climb, "unsafe member: found '../evil.png', expected 000000013.png"),
    "absolute member": (_absolute, "unsafe member: found '/etc/evil.png', expected 000000013.png"),
    "symlink": (_link, "unsafe member: '000000013.png' is a symbolic link"),
}
"""What can happen to row 13 of `make_source`: how to do it, and how the error begins."""

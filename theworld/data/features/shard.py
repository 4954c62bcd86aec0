"""One shard of a cache: a safetensors file with entries and their checksums.

Entries are read by `pread` at the place that the header gives, straight into the tensor's memory: a file that is cut
short while it is read is then an error, where a memory map would end the process.

E entries of the shard
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from theworld.data.features.manifest import Manifest
from theworld.data.indexing.table import sync_folder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_METADATA = "theworld"
_LARGEST_HEADER = 1 << 20
_BLOCK = 4096


@dataclass(frozen=True)
class Layout:
    """Where things lie in a shard, and what they must be.

    Attributes:
        begin: First byte of the first entry.
        entry_bytes: Of each entry.
        sums: int64[E], `checksum` of each entry.
    """

    begin: int
    entry_bytes: int
    sums: NDArray[np.int64]


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:06d}.safetensors"


def entry_bytes(manifest: Manifest) -> int:
    """Bytes of an entry."""
    return int(np.prod(manifest.shape)) * DTYPES[manifest.dtype].itemsize


def checksum(key: bytes, entry: Tensor) -> int:
    """A signed 64-bit sum of a drawing's key and its entry, at a tenth of the time of a CRC-32 of them.

    The 64-bit words of the entry, block after block, each block's sum times an odd number of its own, modulo 2^64. A
    flipped bit always changes it; blocks that are lost, moved or another drawing's change it but by an accident of 1 in
    2^64 or so.
    """
    data = _memory(entry)
    whole = len(data) // _BLOCK * _BLOCK
    words = np.frombuffer(data[:whole], dtype="<u8").reshape(-1, _BLOCK // 8)
    rest = bytes(data[whole:]) + key
    tail = np.frombuffer(rest + bytes(-len(rest) % 8), dtype="<u8")
    blocks = np.concatenate([words.sum(axis=1, dtype=np.uint64), tail])
    odd = np.arange(len(blocks), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return int((blocks * odd).sum(dtype=np.uint64).astype(np.int64))


def write_shard(folder: Path, number: int, manifest: Manifest, *, keys: Sequence[bytes], entries: Tensor) -> None:
    """Write a shard atomically: a draft, flushed to the disk, then renamed. The same entries give the same bytes.

    Args:
        folder: Of the cache.
        number: Of the shard.
        manifest: Of the cache.
        keys: Of the entries' drawings.
        entries: [E, *shape].
    """
    path = folder / shard_name(number)
    draft = path.with_name(f".{path.name}.draft")
    sums = torch.tensor([checksum(key, entry) for key, entry in zip(keys, entries, strict=True)], dtype=torch.int64)
    # One key of metadata: safetensors writes several in any order.
    save_file({manifest.feature: entries, "sums": sums}, draft, metadata={_METADATA: _place(manifest, number)})
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync_folder(folder)


def read_layout(path: Path, number: int, manifest: Manifest) -> Layout:
    """The layout of a shard, after all that can be checked without reading its entries.

    Raises:
        ValueError: The file is damaged, cut short, or belongs to another cache or place.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        header, begin = _read_header(file.read(8), file.read(_LARGEST_HEADER), path)
        count = len(manifest.members(number))
        size = entry_bytes(manifest)
        expected = {
            manifest.feature: (_CODES[manifest.dtype], [count, *manifest.shape], count * size),
            "sums": ("I64", [count], count * 8),
        }
        places = {name: _place_of(header.get(name)) for name in expected}
        end = begin + max((last for *_, last in places.values()), default=0)
        found = {name: (code, shape, last - first) for name, (code, shape, first, last) in places.items()}
        metadata = header.get("__metadata__")
        belongs = isinstance(metadata, dict) and metadata.get(_METADATA) == _place(manifest, number)
        if found != expected or not belongs or path.stat().st_size != end:
            raise ValueError(
                f"{path}: found {found} in {path.stat().st_size} bytes, expected {expected} in {end} bytes, of this "
                "cache and place; the file is damaged or of another cache, make it again with `theworld data cache`."
            )
        file.seek(begin + places["sums"][2])
        sums = np.frombuffer(file.read(8 * count), dtype="<i8").astype(np.int64)
    return Layout(begin=begin + places[manifest.feature][2], entry_bytes=size, sums=sums)


def read_entry(descriptor: int, layout: Layout, place: int, manifest: Manifest) -> Tensor | None:
    """Entry `place` of an open shard, in memory of its own; None if the file ends before it does."""
    entry = torch.empty(manifest.shape, dtype=DTYPES[manifest.dtype])
    memory, done = _memory(entry), 0
    while done < layout.entry_bytes:
        read = os.preadv(descriptor, [memory[done:]], layout.begin + place * layout.entry_bytes + done)
        if read == 0:
            return None
        done += read
    return entry


def _memory(entry: Tensor) -> memoryview:
    return entry.reshape(-1).view(torch.uint8).numpy().data


def _place(manifest: Manifest, number: int) -> str:
    return json.dumps({"manifest_sha256": manifest.sha256, "shard": number}, sort_keys=True)


def _read_header(size: bytes, start: bytes, path: Path) -> tuple[dict[str, object], int]:
    """The JSON header of a safetensors file, and where its data begin."""
    length = struct.unpack("<Q", size)[0] if len(size) == 8 else 0
    try:
        header = json.loads(start[:length]) if 0 < length <= len(start) else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"{path}: not a safetensors file of ours; make it again with `theworld data cache`.")
    return header, 8 + length


def _place_of(entry: object) -> tuple[str, list[int], int, int]:
    """(dtype, shape, first byte, byte after the last one) of a tensor in the header; nothing if it is not there."""
    if isinstance(entry, dict):
        first, last = entry.get("data_offsets", (0, 0))
        return entry.get("dtype", ""), entry.get("shape", []), first, last
    return "", [], 0, 0

"""Which rows of a source look alike: the same image with the same regions drawn on it is encoded once.

Both towers see the drawn image, so an entry of the cache belongs to a drawing. Its key covers the image's bytes, the
regions and how they are drawn; what else decides the pixels (the image processor, the size of the world's frame, the
code that draws) is the same for a whole cache and part of its manifest. A key needs no pixel: the index has the image's
sha256, the row's JSON the regions.

R rows of the source · E entries (different drawings)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from theworld.data.features.manifest import FORMAT_VERSION
from theworld.data.indexing.index import Index
from theworld.data.indexing.table import write_durably
from theworld.data.pictures.drawing import Region, RegionStyle
from theworld.data.rows.row import RowFormat
from theworld.data.shown import describe_row
from theworld.data.stores import RowStore

_METADATA = "theworld"


def drawing_key(image_sha256: str, regions: Sequence[Region], style: RegionStyle) -> bytes:
    """What two rows have in common if and only if the towers see the same picture of both; 32 bytes.

    Args:
        image_sha256: Of the image file, hexadecimal.
        regions: Those drawn on it, in order.
        style: How they are drawn.
    """
    drawn = [[region.index, region.box, region.rle if style == "mask" else None] for region in regions]
    return hashlib.sha256(json.dumps([image_sha256, style, drawn], sort_keys=True).encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """The different drawings of a source, in the order of the first row that shows each.

    Attributes:
        index_sha256: `Index.pictures_sha256` of the source.
        keys: uint8[E, 32], `drawing_key` of each.
        rows: int64[E], the first row that shows it.
        entry: int64[R], drawing of each row, -1 for a row that is no sample.
    """

    index_sha256: str
    keys: NDArray[np.uint8]
    rows: NDArray[np.int64]
    entry: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def write(self, path: Path) -> None:
        """Write as one safetensors file, atomically."""
        facts = json.dumps({"format_version": FORMAT_VERSION, "index_sha256": self.index_sha256}, sort_keys=True)
        content = save({"keys": self.keys, "rows": self.rows, "entry": self.entry}, metadata={_METADATA: facts})
        write_durably(path, content)

    @classmethod
    def read(cls, path: Path) -> Drawings:
        """From `write`.

        Raises:
            ValueError: No such file, a damaged one, or one of another format version.
        """
        try:
            with safe_open(path, framework="np") as file:
                facts = json.loads((file.metadata() or {})[_METADATA])
                arrays = {name: file.get_tensor(name) for name in ("keys", "rows", "entry")}
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ValueError(
                f"{path}: not a readable list of drawings ({error}); make the cache with `theworld data cache`."
            ) from error
        if facts.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{path}: has format version {facts.get('format_version')}, expected {FORMAT_VERSION}; make the cache "
                "again with `theworld data cache`, in another folder."
            )
        return cls(index_sha256=str(facts["index_sha256"]), **arrays)


def find_drawings(store: RowStore, index: Index, *, row_format: RowFormat, progress: bool = True) -> Drawings:
    """Read every row (but no image) once, and number the different drawings.

    Args:
        store: Where rows come from.
        index: The index of the source.
        row_format: How the JSON of a row is understood.
        progress: Show a progress bar.

    Raises:
        ValueError: A row is not what was indexed.
    """
    style: RegionStyle = "mask" if index.header.settings.region_style == "mask" else "box"
    entry = np.full(len(index.table), -1, dtype=np.int64)
    known: dict[bytes, int] = {}
    rows: list[int] = []
    for number in track(index.eligible.tolist(), description="reading rows", disable=not progress):
        regions = describe_row(store, index, number, row_format=row_format).regions
        key = drawing_key(index.text("image_sha256", number), regions, style)
        if key not in known:
            known[key] = len(rows)
            rows.append(number)
        entry[number] = known[key]
    keys = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, 32)
    return Drawings(index_sha256=index.pictures_sha256, keys=keys, rows=np.array(rows, dtype=np.int64), entry=entry)

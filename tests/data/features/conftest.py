"""A cache of made-up entries for real rows: the tower is a formula, everything else is the real thing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from theworld.data.features.drawings import Drawings, find_drawings
from theworld.data.features.manifest import Manifest
from theworld.data.features.store import DRAWINGS
from theworld.data.features.writer import write_features

SHAPE = (3, 5)
ROWS = 7
"""Rows; one of them looks like another one, so there is an entry less."""


def value(entry: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What the tower makes of a drawing."""
    return (torch.arange(15).view(SHAPE) / 7 + entry).to(dtype)


class Encoder:
    """Counts the batches it is asked for; stops with an error before batch `stop`."""

    def __init__(self, dtype: torch.dtype = torch.float32, stop: int | None = None):
        self.dtype, self.stop = dtype, stop
        self.asked: list[list[int]] = []

    def __call__(self, batches):
        for batch in batches:
            if len(self.asked) == self.stop:
                raise KeyboardInterrupt
            self.asked.append(batch)
            yield torch.stack([value(entry, self.dtype) for entry in batch])


class Cache:
    """Rows, their drawings, and the folder in which entries are written."""

    def __init__(self, samples, folder: Path):
        self.samples, self.folder = samples, folder
        index = samples.index
        self.drawings: Drawings = find_drawings(samples.store, index, row_format=samples.row_format, progress=False)
        self.manifest = Manifest(
            feature="image_features",
            encoder={"weights_sha256": "ab", "weights_dtype": "float32", "precision": "32-true", "device": "cpu"},
            preprocessing_sha256="cd",
            index_sha256=index.pictures_sha256,
            dtype="float32",
            shape=SHAPE,
            entries=len(self.drawings),
            entries_per_shard=4,
            batch_size=3,
            made_with="a test",
        )

    def write(self, tower: Encoder | None = None, *, restart: bool = False, folder: Path | None = None, **changes):
        tower, folder = tower or Encoder(), folder or self.folder
        folder.mkdir(exist_ok=True)
        self.drawings.write(folder / DRAWINGS)
        manifest = replace(self.manifest, **changes)
        write_features(folder / manifest.feature, manifest, self.drawings, tower, restart=restart, progress=False)
        return tower

    def keys(self, row: int) -> bytes:
        return self.drawings.keys[self.drawings.entry[row]].tobytes()


@pytest.fixture
def cache(open_osd, make_row, make_samples, tmp_path) -> Cache:
    rows = [make_row(i, turns=1 + i % 2) for i in range(ROWS - 1)]
    rows.insert(4, make_row(1, turns=2, id="as row 1, in other words", answer="No."))
    return Cache(make_samples(open_osd(rows)), tmp_path / "cache")

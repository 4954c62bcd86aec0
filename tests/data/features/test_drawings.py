"""Rows that look alike share a key, and nothing that changes a pixel leaves it as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.data.features.conftest import Cache
from theworld.data.features.drawings import Drawings, drawing_key
from theworld.data.pictures.drawing import Region
from theworld.data.shown import describe_row, draw_row

RLE = {"size": [30, 40], "counts": [100, 900, 200]}
REGIONS = (Region(0, (2, 3, 12, 20), RLE, 0), Region(1, (20, 10, 38, 28), RLE, 1))


def test_a_key_changes_with_all_that_is_drawn():
    key = drawing_key("ab", REGIONS, "mask")
    first, second = REGIONS
    others = [
        drawing_key("ac", REGIONS, "mask"),
        drawing_key("ab", REGIONS, "box"),
        drawing_key("ab", REGIONS[:1], "mask"),
        drawing_key("ab", REGIONS[::-1], "mask"),  # later ones lie on top
        drawing_key("ab", (replace(first, box=(2, 3, 12, 20.5)), second), "mask"),
        drawing_key("ab", (replace(first, index=2), second), "mask"),
        drawing_key("ab", (replace(first, rle=RLE | {"counts": [100, 901, 199]}), second), "mask"),
    ]
    assert len({key, *others}) == 1 + len(others)
    assert len(key) == 32


def test_a_key_does_not_change_with_what_is_not_drawn():
    first, second = REGIONS
    assert drawing_key("ab", (replace(first, first_turn=1), second), "box") == drawing_key("ab", REGIONS, "box")
    assert drawing_key("ab", (replace(first, rle=None), second), "box") == drawing_key("ab", REGIONS, "box")


def test_rows_that_look_alike_share_an_entry(cache):
    drawings, samples = cache.drawings, cache.samples
    assert drawings.entry.tolist() == [0, 1, 2, 3, 1, 4, 5]
    assert drawings.rows.tolist() == [0, 1, 2, 3, 5, 6]
    pictures = []
    for row in range(len(drawings.entry)):
        described = describe_row(samples.store, samples.index, row, row_format=samples.row_format)
        picture = draw_row(samples.store, samples.index, described, region_style="box")
        pictures.append(np.asarray(picture).tobytes())
    numbers = {picture: number for number, picture in enumerate(dict.fromkeys(pictures))}
    assert [numbers[picture] for picture in pictures] == drawings.entry.tolist()


def test_excluded_rows_have_no_entry(open_osd, make_row, make_samples, tmp_path):
    rows = open_osd([make_row(0), make_row(1, bbox=[]), make_row(2)])
    assert Cache(make_samples(rows, skip_malformed=True), tmp_path / "x").drawings.entry.tolist() == [0, -1, 1]


def test_written_and_read(cache, tmp_path):
    path = tmp_path / "drawings.safetensors"
    cache.drawings.write(path)
    again = Drawings.read(path)
    assert again.index_sha256 == cache.samples.index.pictures_sha256
    for name in ("keys", "rows", "entry"):
        assert np.array_equal(getattr(again, name), getattr(cache.drawings, name))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="not a readable list of drawings"):
        Drawings.read(path)
    path.write_bytes(content.replace(b'format_version\\": 1', b'format_version\\": 2'))
    with pytest.raises(ValueError, match="has format version 2, expected 1"):
        Drawings.read(path)
    with pytest.raises(ValueError, match="not a readable list of drawings"):
        Drawings.read(tmp_path / "none")


def test_row_is_described_without_its_image(cache):
    """What a key needs is there when the image is not."""
    samples = cache.samples
    (samples.store.images.folder / "img0.png").unlink()
    row = describe_row(samples.store, samples.index, 0, row_format=samples.row_format)
    assert drawing_key(samples.index.text("image_sha256", 0), row.regions, "box") == cache.keys(0)
    with pytest.raises(ValueError, match="img0.png"):
        draw_row(samples.store, samples.index, row, region_style="box")
    assert torch.is_tensor(samples.processor.pixels(None))

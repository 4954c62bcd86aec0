"""Whatever changes a pixel changes the hash; what changes none does not."""

from __future__ import annotations

import pytest
from PIL import ImageDraw
from transformers import Gemma3ImageProcessorPil

from tests.tiny import make_image_processor
from theworld.data.features.preprocessing import preprocessing_sha256
from theworld.data.pictures import drawing
from theworld.data.processor import TheWorldProcessor

PLACEHOLDERS = {"num_image_tokens": 4, "num_world_tokens": 5}


def hashes(processor, style="box"):
    return tuple(preprocessing_sha256(processor, f, region_style=style) for f in ("image_features", "world_latents"))


def test_the_same_processor_gives_the_same_hash(make_processor):
    assert hashes(make_processor()) == hashes(make_processor())
    assert hashes(make_processor()) == hashes(make_processor(num_image_tokens=7, num_world_tokens=9))
    assert len(set(hashes(make_processor()))) == 2


def test_each_tower_has_its_own_settings(make_processor):
    vision, world = hashes(make_processor())
    changed_vision, changed_world = hashes(make_processor(world_image_size=24))
    assert changed_vision == vision
    assert changed_world != world


@pytest.mark.parametrize(
    "changes",
    [{"image_mean": [0.4, 0.5, 0.5]}, {"image_std": [0.5, 0.5, 0.6]}, {"resample": 3}, {"rescale_factor": 0.01}],
)
def test_settings_of_the_image_processor(make_processor, tokenizer, changes):
    settings = make_image_processor(32).to_dict() | changes
    other = TheWorldProcessor(tokenizer, Gemma3ImageProcessorPil(**settings), world_image_size=16, **PLACEHOLDERS)
    assert hashes(other)[0] != hashes(make_processor())[0]
    assert hashes(other)[1] == hashes(make_processor())[1]


def test_style_and_code_of_the_drawing(make_processor, monkeypatch):
    processor = make_processor(world_image_size=64)
    before = hashes(processor)
    assert all(a != b for a, b in zip(hashes(processor, "mask"), before, strict=True))
    monkeypatch.setattr(drawing, "PALETTE", ((230, 25, 76), *drawing.PALETTE[1:]))
    assert all(a != b for a, b in zip(hashes(processor), before, strict=True))
    monkeypatch.undo()
    assert hashes(processor) == before
    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", lambda *args, **kwargs: None)
    assert all(a != b for a, b in zip(hashes(processor), before, strict=True))

"""World tokens behind the image: the ids one by one, what sees what, and that an export is used as it was trained."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from tests.training.conftest import write_tiny_base
from theworld.data.datamodule import OSDDataModule
from theworld.data.processor import TheWorldProcessor
from theworld.types import TokenType

TURNS = [("Is Region [0] left of Region [1]?", "Yes.")]
SETTINGS = {"num_world_tokens": 4, "world_image_size": 16}


@pytest.fixture(scope="module")
def image():
    return Image.linear_gradient("L").convert("RGB").resize((40, 30))


def test_the_world_block_follows_the_image(make_processor, tokenizer, image):
    sample = make_processor(world_position="after_image").encode(TURNS, image, "a", max_seq_length=500)
    opening = [tokenizer.decode([token]) for token in sample.input_ids[:19]]
    assert opening == [
        *("<bos>", "<start_of_turn>", "user", "\n\n\n", "<start_of_image>", *["<image_soft_token>"] * 4),
        *("<end_of_image>", "<unused0>", *["<unused1>"] * 5, "<unused2>", "\n\n", "Is"),
    ]
    types = sample.token_type_ids.tolist()
    assert [n for n, kind in enumerate(types) if kind == TokenType.IMAGE] == [5, 6, 7, 8]
    assert [n for n, kind in enumerate(types) if kind == TokenType.WORLD] == [11, 12, 13, 14, 15]


def test_nothing_else_changes(make_processor, image):
    first, after = (make_processor(world_position=position) for position in ("first", "after_image"))
    samples = [p.encode(TURNS, image, "a", max_seq_length=500) for p in (first, after)]
    assert samples[0].input_ids.tolist() != samples[1].input_ids.tolist()
    assert sorted(samples[0].input_ids.tolist()) == sorted(samples[1].input_ids.tolist())
    assert torch.equal(samples[0].labels, samples[1].labels)
    assert torch.equal(samples[0].pixel_values, samples[1].pixel_values)
    assert torch.equal(samples[0].world_pixel_values, samples[1].world_pixel_values)
    assert first.count_tokens(TURNS) == after.count_tokens(TURNS)
    off = [make_processor(enable_world=False, world_position=position) for position in ("first", "after_image")]
    assert [p.encode_prompt(TURNS, image, "a").input_ids.tolist() for p in off][0] == (
        off[1].encode_prompt(TURNS, image, "a").input_ids.tolist()
    )


def test_an_unknown_position_is_refused(make_processor):
    with pytest.raises(ValueError, match="found world_position='last', expected one of"):
        make_processor(world_position="last")


def test_an_export_is_used_as_it_was_trained(tmp_path):
    write_tiny_base(tmp_path / "base")
    assert TheWorldProcessor.from_pretrained(tmp_path / "base", **SETTINGS).world_position == "first"
    data = OSDDataModule(base=str(tmp_path / "base"), world_position="after_image", **SETTINGS)
    data.processor.save_pretrained(tmp_path / "export")
    assert json.loads((tmp_path / "export" / "processor_config.json").read_text())["world_position"] == "after_image"
    assert TheWorldProcessor.from_pretrained(tmp_path / "export", **SETTINGS).world_position == "after_image"
    assert OSDDataModule(base=str(tmp_path / "export"), **SETTINGS).processor.world_position == "after_image"
    with pytest.raises(ValueError, match="was trained with world_position='after_image', found the choice 'first'"):
        TheWorldProcessor.from_pretrained(tmp_path / "export", world_position="first", **SETTINGS)
    first = TheWorldProcessor.from_pretrained(tmp_path / "base", world_position="first", **SETTINGS)
    first.save_pretrained(tmp_path / "plain")
    assert "world_position" not in json.loads((tmp_path / "plain" / "processor_config.json").read_text())

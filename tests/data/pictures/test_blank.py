"""Blank pictures: they show nothing, differ, reach one tower alone, and cannot be on without a word."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.conftest import write_tiny_base
from theworld.data.features.preprocessing import preprocessing_sha256
from theworld.data.pictures.blank import blank_picture
from theworld.data.processor import TheWorldProcessor


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    write_tiny_base(folder)
    return folder


def test_a_plain_colour_of_each_picture():
    blanks = [np.asarray(blank_picture(picture(seed))) for seed in range(50)]
    assert all(blank.shape == (30, 40, 3) and (blank == blank[0, 0]).all() for blank in blanks)
    assert len({tuple(blank[0, 0].tolist()) for blank in blanks}) == 50
    assert np.array_equal(blanks[0], np.asarray(blank_picture(picture(0))))


@pytest.mark.parametrize("tower", ["vision", "world"])
def test_one_tower_sees_nothing_and_the_other_everything(make_processor, tower):
    with pytest.warns(UserWarning, match=f"the {tower} tower sees a plain colour"):
        processor = make_processor(blank_image=tower)
    shown = make_processor().encode_prompt([("Is?", "")], picture(1), "a")
    blank = processor.encode_prompt([("Is?", "")], picture(1), "a")
    seen, other = ("pixel_values", "world_pixel_values")[:: 1 if tower == "vision" else -1]
    assert float(getattr(blank, seen).flatten(2).std(-1).max()) < 1e-6
    assert float(getattr(shown, seen).flatten(2).std(-1).min()) > 0.01  # control
    assert torch.equal(getattr(blank, other), getattr(shown, other))
    assert torch.equal(blank.input_ids, shown.input_ids)


def test_an_unknown_tower_is_refused(make_processor):
    with pytest.raises(ValueError, match="found blank_image='both', expected one of"):
        make_processor(blank_image="both")


def test_cached_features_of_whole_pictures_do_not_pass_for_those_of_blank_ones(make_processor):
    with pytest.warns(UserWarning, match="control"):
        blank = make_processor(blank_image="vision")
    hashes = [preprocessing_sha256(p, "image_features", region_style="box") for p in (make_processor(), blank)]
    assert hashes[0] != hashes[1]


def test_an_export_records_it_and_asks_what_is_meant(base, tmp_path):
    settings = {"num_world_tokens": 4, "world_image_size": 16}
    TheWorldProcessor.from_pretrained(base, **settings).save_pretrained(tmp_path / "plain")
    assert "blank_image" not in json.loads((tmp_path / "plain" / "processor_config.json").read_text())
    with pytest.warns(UserWarning, match="control"):
        trained = TheWorldProcessor.from_pretrained(base, blank_image="vision", **settings)
    trained.save_pretrained(tmp_path / "blank")
    assert json.loads((tmp_path / "blank" / "processor_config.json").read_text())["blank_image"] == "vision"
    with pytest.raises(ValueError, match="was trained with blank_image='vision', and found no choice"):
        TheWorldProcessor.from_pretrained(tmp_path / "blank", **settings)
    with pytest.warns(UserWarning, match="control"):
        again = TheWorldProcessor.from_pretrained(tmp_path / "blank", blank_image="vision", **settings)
    assert again.blank_image == "vision"
    assert TheWorldProcessor.from_pretrained(tmp_path / "blank", blank_image="none", **settings).blank_image == "none"
    assert TheWorldProcessor.from_pretrained(tmp_path / "plain", **settings).blank_image == "none"

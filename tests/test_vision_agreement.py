"""The data side and the model side prepare a picture for the world encoder in the same way, value by value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import WORLD_SIDE, make_model
from theworld.data.pictures.images import world_pixels


@pytest.fixture(scope="module")
def encoder():
    return make_model().cosmos_encoder


@torch.no_grad()
@pytest.mark.parametrize("size", [(40, 30), (7, 90), (WORLD_SIDE, WORLD_SIDE)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_picture_and_its_pixels_give_the_same_world_tokens(encoder, size, mode):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    images = [Image.fromarray(noise).convert(mode), Image.new(mode, size)]
    seen = []
    handle = encoder.vae.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    by_model = encoder(images)
    pixels = torch.stack([world_pixels(image, WORLD_SIDE) for image in images])
    by_data = encoder(pixels)
    handle.remove()
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(by_model, by_data)
    assert torch.equal(seen[0], pixels)
    assert pixels[0].std() > 0.1
    assert not torch.equal(by_model[0], by_model[1])  # control: the tokens do tell pictures apart

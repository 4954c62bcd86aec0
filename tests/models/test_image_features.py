"""The image path in two halves is Gemma's own, and cached halves give the same model."""

from __future__ import annotations

import pytest
import torch

from tests.models.conftest import make_sample, packed
from tests.tiny import inputs, make_model
from theworld.models.image_features import image_features, image_tokens


@torch.no_grad()
def test_two_halves_are_gemmas_own_path():
    model = make_model()
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs = model.gemma.model.get_image_features(pixels, return_dict=True).pooler_output
    assert torch.equal(image_tokens(model.gemma, pixels), theirs)
    assert torch.equal(image_tokens(model.gemma, None, image_features(model.gemma, pixels)), theirs)
    assert image_tokens(model.gemma, None).shape == (0, 0, 32)


@torch.no_grad()
def test_cached_towers_give_the_same_logits():
    model = make_model()
    batch = inputs(packed([make_sample(n, text=5, answer=3, seed=i) for i, n in enumerate("ab")], 64))
    live = model(**batch).logits
    features = image_features(model.gemma, batch.pop("pixel_values"))
    latents = model.cosmos_encoder.vae(batch.pop("world_pixel_values"))
    assert torch.equal(model(**batch, image_features=features, world_latents=latents).logits, live)
    swapped = model(**batch, image_features=features.flip(0), world_latents=latents).logits
    assert not torch.equal(swapped, live)  # control: they are read


def test_live_rows_and_a_filled_cache_are_refused():
    model = make_model()
    ids = torch.randint(16, 64, (1, 6))
    cache = model(ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="found live_rows with a cache"):
        model(ids[:, :1], past_key_values=cache, live_rows=object())

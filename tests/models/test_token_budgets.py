"""Fewer world tokens a frame: which budgets there are, that one projector serves all, and that they are nested."""

from __future__ import annotations

import re

import pytest
import torch

from tests.models.conftest import make_sample, packed
from tests.tiny import inputs, make_model, tiny_config
from theworld.models.configuration import TheWorldConfig
from theworld.models.cosmos_encoder import new_projector
from theworld.models.projector import block_means
from theworld.models.theworld import TheWorld
from theworld.world_tokens import num_world_tokens, random_num_world_tokens, tokens_per_frame


@pytest.mark.parametrize(("size", "allowed"), [(512, [4096, 1024, 256, 64, 16, 4, 1]), (224, [784, 196, 49, 16, 4, 1])])
def test_the_budgets_of_a_size(size: int, allowed: list[int]) -> None:
    for budget in range(-1, 4100):
        if budget in allowed:
            assert num_world_tokens(size, "spatial", 2, budget) == 3 * budget
            continue
        message = f"found world_tokens_per_frame={budget}, expected one of {allowed} (or none)"
        with pytest.raises(ValueError, match=re.escape(message)):
            num_world_tokens(size, "spatial", 2, budget)
    for budget in allowed:
        settings = {"world_image_size": size, "num_world_steps": 2, "world_tokens_per_frame": budget}
        assert TheWorldConfig.preset("gemma3-4b", **settings).num_world_tokens == 3 * budget


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"world_tokens_per_frame": 2}, r"found world_tokens_per_frame=2, expected one of \[4, 1\]"),
        ({"world_tokens_per_frame": 0}, r"found world_tokens_per_frame=0, expected one of \[4, 1\]"),
        (
            {"world_tokens_per_frame": 1, "world_projection_mode": "channel"},
            "found world_tokens_per_frame=1 with world_projection_mode='channel', expected none",
        ),
    ],
)
def test_other_budgets_are_refused(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**settings)


SPATIAL = {
    "enable_world": True,
    "world_image_size": 512,
    "world_projection_mode": "spatial",
    "num_world_steps": 0,
    "random_world_tokens_per_frame": [64, 16],
}


def test_numbers_to_draw_from() -> None:
    assert random_num_world_tokens(**SPATIAL) == [64, 16]
    assert random_num_world_tokens(**SPATIAL | {"num_world_steps": 2, "world_tokens_per_frame": 64}) == [192, 48]
    whole = {"world_image_size": 224, "random_world_tokens_per_frame": [784, 49]}
    assert random_num_world_tokens(**SPATIAL | whole) == [784, 49]
    assert random_num_world_tokens(**SPATIAL | {"random_world_tokens_per_frame": None}) is None
    hidden = {"world_latent_shape": (2048, 16), "random_world_tokens_per_frame": [1024, 256]}
    assert random_num_world_tokens(**SPATIAL | hidden) == [1024, 256]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"random_world_tokens_per_frame": [4096, 100]}, "[4096, 100], expected at least two different ones of [4096"),
        ({"random_world_tokens_per_frame": [64]}, "[64], expected at least two different ones of [4096, 1024, 256"),
        ({"random_world_tokens_per_frame": [64, 64]}, "[64, 64], expected at least two different ones of"),
        ({"random_world_tokens_per_frame": []}, "[], expected at least two different ones of"),
        ({"world_latent_shape": (2048, 16), "random_world_tokens_per_frame": [4096, 64]}, "different ones of [1024, 2"),
        (
            {"world_tokens_per_frame": 16},
            "[64, 16], expected at least two different ones of [16, 4, 1]: squares whose side divides that of the "
            "latents, at most world_tokens_per_frame, 16",
        ),
        ({"world_projection_mode": "channel"}, "'channel', expected spatial world tokens"),
        ({"enable_world": False}, "enable_world=False and world_projection_mode='spatial', expected spatial"),
    ],
)
def test_numbers_that_cannot_be_drawn_are_refused(changes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        random_num_world_tokens(**SPATIAL | changes)
    assert str(error.value).startswith("found random_world_tokens_per_frame=")


def test_none_is_a_token_a_cell_or_a_channel() -> None:
    assert tokens_per_frame(28, 16, mode="spatial", budget=None) == 784
    assert tokens_per_frame(28, 16, mode="channel", budget=None) == 16


def test_block_means_are_means_of_blocks_and_nested() -> None:
    latents = torch.randn(2, 3, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    found = block_means(latents, side=16)
    assert found.shape == (2, 3, 2, 16, 16)
    for row, column in ((0, 0), (3, 9), (15, 15)):
        block = latents[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        torch.testing.assert_close(found[..., row, column], block.mean((-2, -1)))
    torch.testing.assert_close(block_means(block_means(latents, side=32), side=16), found)
    assert torch.equal(block_means(latents, side=64), latents)


@torch.no_grad()
def test_one_projector_serves_every_budget() -> None:
    torch.manual_seed(0)
    whole = new_projector(tiny_config(world_image_size=64), target_rms=2.5)
    latents = torch.randn(2, 16, 3, 8, 8)
    for side in (8, 4, 2, 1):
        fewer = new_projector(tiny_config(world_image_size=64, world_tokens_per_frame=side**2), target_rms=2.5)
        fewer.load_state_dict(whole.state_dict())
        found = fewer(latents)
        assert found.shape == (2, 3 * side**2, 32)
        assert torch.equal(found, whole(block_means(latents, side=side)))
    with torch.device("meta"):
        config = TheWorldConfig.preset("gemma3-4b", world_tokens_per_frame=64)
        assert sum(p.numel() for p in new_projector(config, target_rms=1.0).parameters()) == 6_599_680


def test_frames_of_another_size_are_refused() -> None:
    """A frame of twice the side has blocks as well: their number would not tell."""
    layer = new_projector(tiny_config(world_image_size=64, world_tokens_per_frame=4), target_rms=2.5)
    with pytest.raises(ValueError, match="found latents of 256 cells, expected 64: .*tokens_per_frame"):
        layer(torch.randn(1, 16, 1, 16, 16))


@torch.no_grad()
def test_an_export_may_be_read_with_another_budget(tmp_path) -> None:
    make_model(seed=3).save_pretrained(tmp_path)
    sample = make_sample("a", text=5, answer=3, seed=0)
    latents = TheWorld.from_pretrained(tmp_path).cosmos_encoder.vae(sample.world_pixel_values)
    loaded = TheWorld.from_pretrained(tmp_path, world_tokens_per_frame=1)
    assert loaded.config.num_world_tokens == 1
    tokens = loaded.cosmos_encoder(sample.world_pixel_values)
    assert torch.equal(tokens, loaded.cosmos_encoder.projector(latents))
    assert tokens.shape == (1, 1, 32)
    with pytest.raises(ValueError, match="found 4 world placeholders, expected 1 for 1 frames of 1 tokens"):
        loaded(**inputs(packed([sample], 64)))
    loaded.save_pretrained(tmp_path / "again")
    assert TheWorld.from_pretrained(tmp_path / "again").config.world_tokens_per_frame == 1
    assert TheWorld.from_pretrained(tmp_path / "again", world_tokens_per_frame=4).config.num_world_tokens == 4

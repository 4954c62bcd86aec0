"""A row whose samples drew different numbers of world tokens: each is what a model of its number alone computes."""

from __future__ import annotations

import logging
import re

import pytest
import torch

from tests.models.conftest import drawn_sample, filled_row
from tests.tiny import EOW, inputs, make_model, randomise, tiny_config
from theworld.models.attention.backends import most_documents
from theworld.models.configuration import TheWorldConfig
from theworld.models.theworld import TheWorld
from theworld.types import Batch, Sample

COUNTS = (16, 64, 4)
"""World tokens a frame of three samples."""
ONE_PRODUCT = {"rtol": 1e-5, "atol": 1e-6}
"""Not to the bit: the projector's products have as many rows as all frames have tokens, and round accordingly."""


def model_of(tokens: int | None = None, *, steps: int = 0, seed: int = 0, **settings) -> TheWorld:
    """The same weights for every number of tokens."""
    settings = {"world_image_size": 64, "num_world_steps": steps, "world_tokens_per_frame": tokens} | settings
    model = make_model(seed, **settings)
    randomise(model.cosmos_encoder)  # a temporal embedding that is not 0
    return model


def samples_of(**settings) -> list[Sample]:
    return [drawn_sample(name, n, seed=i, **settings) for i, (name, n) in enumerate(zip("abc", COUNTS, strict=True))]


def given(batch: Batch, **more) -> dict[str, object]:
    return inputs(batch, labels=True) | {"world_latents": batch.world_latents} | more


@pytest.mark.parametrize("steps", [0, 2])
@torch.no_grad()
def test_world_tokens_are_those_of_a_model_of_each_number(steps: int) -> None:
    encoder, frames = model_of(steps=steps).cosmos_encoder, 1 + steps
    latents = torch.randn(3, 16, frames, 8, 8, generator=torch.Generator().manual_seed(0))
    counts = [n * frames for n in COUNTS]
    found = encoder.project(latents, counts)
    assert found.shape == (1, sum(counts), 32)
    expected = [model_of(n, steps=steps).cosmos_encoder.project(latents[i : i + 1]) for i, n in enumerate(COUNTS)]
    for one, fixed in zip(found.split(counts, dim=1), expected, strict=True):
        torch.testing.assert_close(one, fixed, **ONE_PRODUCT)
    # Control: in another order of the images they are others.
    turned = encoder.project(latents.roll(1, 0), counts).split(counts, dim=1)
    assert all((one - fixed).abs().max() > 0.1 for one, fixed in zip(turned, expected, strict=True))


@torch.no_grad()
def test_world_tokens_of_pixels_as_well() -> None:
    encoder = model_of().cosmos_encoder
    pixels = torch.cat([sample.world_pixel_values for sample in samples_of(latents=False)])
    found = encoder(pixels, COUNTS).split(list(COUNTS), dim=1)
    for i, n in enumerate(COUNTS):
        torch.testing.assert_close(found[i], model_of(n).cosmos_encoder(pixels[i : i + 1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "latents"), [(0, True), (2, True), (0, False)])
def test_loss_and_gradient_of_a_mixed_row_are_the_sum_of_its_samples(steps: int, latents: bool) -> None:
    model, samples = model_of(steps=steps), samples_of(steps=steps, latents=latents)
    counts = tuple(n * (1 + steps) for n in COUNTS)
    row = filled_row(samples)
    output = model(**given(row, world_token_counts=counts))
    ours = torch.autograd.grad(output.loss_sum, list(model.cosmos_encoder.projector.parameters()))
    loss, theirs = 0.0, [torch.zeros_like(gradient) for gradient in ours]
    for sample, n in zip(samples, COUNTS, strict=True):
        fixed = model_of(n, steps=steps)
        alone = fixed(**given(filled_row([sample]))).loss_sum
        gradients = torch.autograd.grad(alone, list(fixed.cosmos_encoder.projector.parameters()))
        loss, theirs = loss + alone.item(), [a + b for a, b in zip(theirs, gradients, strict=True)]
    assert output.loss_sum.item() == pytest.approx(loss, rel=1e-5)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    # Control: as many tokens in all, dealt to other frames.
    other = model(**given(row, world_token_counts=(counts[1], counts[0], counts[2]))).loss_sum
    assert other.item() != pytest.approx(loss, rel=1e-4)


def test_without_counts_a_mixed_row_is_refused() -> None:
    with pytest.raises(ValueError, match="found 84 world placeholders, expected 192 for 3 frames of 64 tokens"):
        model_of()(**given(filled_row(samples_of())))


@pytest.mark.parametrize(
    ("counts", "settings", "message"),
    [
        ((16, 64), {}, "found world_token_counts (16, 64) for 3 images, expected as many, each of [64, 16, 4, 1]"),
        ((16, 60, 8), {}, "found world_token_counts (16, 60, 8) for 3 images"),
        ((16, 16, 16), {"world_projection_mode": "channel"}, "expected as many, each of []"),
    ],
)
def test_counts_that_no_frame_has_are_refused(counts, settings, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        model_of(**settings).cosmos_encoder.project(torch.zeros(3, 16, 1, 8, 8), counts)


@torch.no_grad()
def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="found latents of 256 cells, expected 64"):
        model_of().cosmos_encoder(torch.zeros(3, 3, 128, 128), COUNTS)


@torch.no_grad()
def test_more_short_samples_than_whole_ones_fit_a_kernel_that_looks_at_documents() -> None:
    """`flash` takes the documents of a row from a bound, which must know the smallest draw."""
    samples = [drawn_sample(f"{i}", 1, seed=i % 3) for i in range(9)]
    row, counts = filled_row(samples), (1,) * 9
    short, whole = (tiny_config(world_image_size=64, trained_world_tokens_per_frame=drawn) for drawn in ([64, 1], None))
    assert most_documents(row.input_ids.shape, short) >= len(samples) + 1
    assert most_documents(row.input_ids.shape, whole) < len(samples) + 1
    losses = {}
    for backend in ("sdpa", "flash"):
        model = model_of(trained_world_tokens_per_frame=[64, 1])
        model.attention_backend = backend
        losses[backend] = model(**given(row, world_token_counts=counts)).loss_sum.item()
    assert losses["flash"] == pytest.approx(losses["sdpa"], rel=1e-5)
    model.config.trained_world_tokens_per_frame = None
    with pytest.raises(RuntimeError, match="documents in a batch"):
        model(**given(row, world_token_counts=counts))


def test_what_it_was_trained_with_is_in_the_export(tmp_path, caplog) -> None:
    caplog.set_level(logging.WARNING, logger="theworld.models.loading")
    model_of(trained_world_tokens_per_frame=[64, 4]).save_pretrained(tmp_path)
    for tokens, told in ((None, False), (64, False), (4, False), (16, True)):
        caplog.clear()
        config = TheWorld.from_pretrained(tmp_path, world_tokens_per_frame=tokens).config
        assert config.num_world_tokens == (tokens or 64)
        assert config.budgets_trained_with == [64, 4]
        expected = f"is read with {tokens} world tokens a frame, and was trained with [64, 4] only"
        assert (expected in caplog.text) == told


def test_an_export_of_one_number_says_so_when_it_reads_another(tmp_path, caplog) -> None:
    caplog.set_level(logging.WARNING, logger="theworld.models.loading")
    model_of(16).save_pretrained(tmp_path / "first")
    config = TheWorld.from_pretrained(tmp_path / "first", world_tokens_per_frame=16).config
    assert (config.trained_world_tokens_per_frame, config.budgets_trained_with) == (None, [16])
    assert "world tokens a frame" not in caplog.text
    read = TheWorld.from_pretrained(tmp_path / "first", world_tokens_per_frame=4)
    assert "is read with 4 world tokens a frame, and was trained with [16] only" in caplog.text
    read.save_pretrained(tmp_path / "again")
    again = TheWorld.from_pretrained(tmp_path / "again").config
    assert (again.world_tokens_per_frame, again.budgets_trained_with) == (4, [16])


def test_a_number_that_a_frame_cannot_have_is_refused_in_a_config() -> None:
    with pytest.raises(ValueError, match=r"found world_tokens_per_frame=5, expected one of \[64, 16, 4, 1\]"):
        TheWorldConfig.preset("tiny", world_image_size=64, trained_world_tokens_per_frame=[64, 5])


def test_the_cut_leaves_the_end_of_the_block() -> None:
    sample = drawn_sample("a", 4)
    assert int((sample.input_ids == EOW).sum()) == 1
    assert sample.input_ids[6] == EOW  # behind the first token, the start and four placeholders

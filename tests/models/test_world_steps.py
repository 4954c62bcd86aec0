"""Several latent frames of a sample: one block of world tokens, the same in every layout, pass and backend."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from tests.models.conftest import make_sample, packed, padded
from tests.models.test_generation import NEW_TOKENS, greedy
from tests.tiny import WORLD_TOKENS, NegativeFrames, gemma_config, inputs, make_model, tiny_config
from theworld.models.cosmos_encoder import CosmosEncoder
from theworld.models.fusion import fuse
from theworld.models.live_rows import with_live_rows
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.models.world_sources.source import content_keys
from theworld.types import IGNORE_INDEX, TokenType

STEPS = 2
FRAMES = 1 + STEPS


def samples(*, frames: int = FRAMES, answer: int = 3, alike: bool = False):
    return [
        make_sample(n, text=5 + (0 if alike else 3 * i), answer=answer and answer + i, seed=i, frames=frames)
        for i, n in enumerate("abc")
    ]


def given(batch, **settings):
    return inputs(batch, **settings) | {"world_latents": batch.world_latents}


@pytest.fixture(scope="module")
def model() -> TheWorld:
    return make_model(num_world_steps=STEPS)


@torch.no_grad()
@pytest.mark.parametrize(
    ("backend", "bidirectional_world"),
    [("sdpa", False), ("sdpa", True), ("flex", False), ("flex", True), ("flash", False), ("flash4", False)],
)
def test_packed_equals_separate(backend: str, bidirectional_world: bool) -> None:
    model = make_model(num_world_steps=STEPS, bidirectional_world=bidirectional_world)
    parts = samples()
    model.attention_backend = backend
    logits = model(**given(packed(parts, 128))).logits[0]
    model.attention_backend = "sdpa"
    at = 0
    for part in parts:
        alone = model(part.input_ids[None], pixel_values=part.pixel_values, world_latents=part.world_latents).logits[0]
        torch.testing.assert_close(logits[at : at + len(alone)], alone, atol=1e-5, rtol=0)
        at += len(alone)


@torch.no_grad()
def test_every_frame_lies_in_its_placeholders_in_order(model: TheWorld) -> None:
    batch = packed(samples(), 128)
    sources = {"pixel_values": batch.pixel_values, "image_features": None, "world_pixel_values": None}
    embeds, _ = fuse(
        model, batch.input_ids, batch.token_type_ids, **sources, world_latents=batch.world_latents
    )  # (1, T, D)
    is_world = batch.token_type_ids == TokenType.WORLD
    assert int(is_world.sum()) == 3 * FRAMES * WORLD_TOKENS == 3 * model.config.num_world_tokens
    found = embeds[is_world].view(3, FRAMES, WORLD_TOKENS, -1)
    expected = model.cosmos_encoder.projector(batch.world_latents).view_as(found)
    assert torch.equal(found, expected)
    exchanged = model.cosmos_encoder.projector(batch.world_latents.flip(2)).view_as(found)
    assert not torch.allclose(found[:, 1], exchanged[:, 0])  # control: frames differ


@torch.no_grad()
@pytest.mark.parametrize("bidirectional_world", [False, True])
def test_what_a_frame_reaches(bidirectional_world: bool) -> None:
    """The last frame of the second sample changes no other sample; in its own, what the rule lets see it."""
    model = make_model(num_world_steps=STEPS, bidirectional_world=bidirectional_world)
    batch = packed(samples(), 128)
    latents = batch.world_latents.clone()
    latents[1, :, -1] += 1.0
    before, after = (model(**given(b)).logits[0] for b in (batch, replace(batch, world_latents=latents)))
    same = (before == after).all(dim=-1)
    own = torch.nonzero(batch.document_ids[0] == 1).flatten()
    first = 2 + (0 if bidirectional_world else STEPS * WORLD_TOKENS)  # BOS, SOW; a causal world: the frames before it
    assert same[batch.document_ids[0] != 1].all()
    assert same[own[:first]].all()
    assert not same[own[first:]].any()


def test_labels_and_positions_are_as_with_one_frame(model: TheWorld) -> None:
    batch = packed(samples(), 128)
    output = model(**given(batch, labels=True), logits_to_keep=0)
    expected = cross_entropy(output.logits[0, :-1], batch.labels[0, 1:], ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=0)
    assert output.num_target_tokens == 4 + 5 + 6
    without = given(batch) | {"position_ids": None, "token_type_ids": None}
    assert torch.equal(model(**without).logits, output.logits)


@pytest.mark.parametrize("layers", [6, 8])
def test_rows_left_out_change_neither_loss_nor_gradients(layers: int) -> None:
    model = make_model(num_world_steps=STEPS, gemma_config=gemma_config(num_hidden_layers=layers))
    batch = packed(samples(), 128)
    live = with_live_rows(batch, model.config).live_rows
    assert live is not None
    parameters = list(model.cosmos_encoder.projector.parameters())
    plain, trimmed = (model(**given(batch, labels=True), live_rows=rows).loss for rows in (None, live))
    torch.testing.assert_close(trimmed, plain, rtol=1e-6, atol=1e-6)
    for a, b in zip(*(torch.autograd.grad(loss, parameters) for loss in (trimmed, plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert b.abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("bidirectional_world", [False, True])
def test_prefill_and_decode_equal_the_full_forward(bidirectional_world: bool) -> None:
    model = make_model(num_world_steps=STEPS, bidirectional_world=bidirectional_world)
    parts = samples(answer=0)
    batch = padded(parts)
    frames = {"world_latents": batch.world_latents, "world_pixel_values": None}
    tokens, logits = greedy(model, batch, **frames)
    mask = (batch.document_ids >= 0).long()
    whole = torch.cat([batch.input_ids, tokens], dim=1)
    full = model(
        whole,
        attention_mask=torch.cat([mask, torch.ones_like(tokens)], dim=1),
        pixel_values=batch.pixel_values,
        world_latents=batch.world_latents,
        logits_to_keep=NEW_TOKENS + 1,
    ).logits[:, :-1]
    torch.testing.assert_close(logits, full, atol=1e-4, rtol=0)
    alone, _ = greedy(model, padded(parts[:1]), world_latents=parts[0].world_latents, world_pixel_values=None)
    assert torch.equal(alone[0], tokens[0])
    future = batch.world_latents.clone()
    future[:, :, -1] *= -1
    _, changed = greedy(model, batch, **(frames | {"world_latents": future}))
    assert (changed - logits)[:, -1].abs().amax(dim=-1).min() > 1e-4  # the last step still sees the last frame


@torch.no_grad()
def test_one_frame_of_the_world_encoder_is_as_before_and_of_a_source_is_the_source_s() -> None:
    encoder = CosmosEncoder.from_config(tiny_config()).eval()
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(encoder(pixels), encoder.projector(encoder.vae(pixels)))
    encoder.source = NegativeFrames(1)
    assert torch.equal(encoder(pixels), encoder.projector(encoder.source.encode(pixels, [])))
    assert encoder.source.keys == content_keys(pixels)
    assert len(set(encoder.source.keys)) == 2


@torch.no_grad()
def test_a_source_gives_every_frame(model: TheWorld) -> None:
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    model.cosmos_encoder.source = NegativeFrames(FRAMES)
    try:
        tokens = model.cosmos_encoder(pixels)
        image = Image.new("RGB", (20, 12), "red")
        assert model.cosmos_encoder([image]).shape == (1, FRAMES * WORLD_TOKENS, 32)
    finally:
        model.cosmos_encoder.source = None
    expected = model.cosmos_encoder.project(NegativeFrames(FRAMES).encode(pixels, []))
    assert torch.equal(tokens, expected)


def test_a_source_is_no_part_of_the_model(tmp_path) -> None:
    model = make_model(num_world_steps=STEPS)
    names, modules = list(model.state_dict()), list(model.modules())
    model.cosmos_encoder.source = NegativeFrames(FRAMES)
    assert (list(model.state_dict()), list(model.modules())) == (names, modules)
    assert sum(len(group) for group in parameter_groups(model).values()) == len(list(model.parameters()))
    model.save_pretrained(tmp_path)
    assert TheWorld.from_pretrained(tmp_path).cosmos_encoder.source is None


def test_frames_without_a_source_say_what_to_do(model: TheWorld) -> None:
    with pytest.raises(ValueError, match="no world source with num_world_steps=2.*attach a source .* give world_lat"):
        model.cosmos_encoder(torch.zeros(1, 3, 16, 16))
    model.cosmos_encoder.source = NegativeFrames(2)
    try:
        with pytest.raises(ValueError, match="found a world source of 2 latent frames, expected 3"):
            model.cosmos_encoder(torch.zeros(1, 3, 16, 16))
    finally:
        model.cosmos_encoder.source = None


@pytest.mark.parametrize(
    ("shape", "found"),
    [((16, 2, 2, 2), (16, 2, 4)), ((8, 3, 2, 2), (8, 3, 4)), ((16, 3, 2, 4), (16, 3, 8)), ((16, 1, 2, 2), (16, 1, 4))],
)
def test_latents_of_another_shape_are_refused(model: TheWorld, shape, found) -> None:
    batch = packed(samples(), 128)
    wrong = replace(batch, world_latents=torch.randn(3, *shape))
    message = f"found world latents of {found} channels, frames and cells, expected (16, 3, 4)"
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**given(wrong))

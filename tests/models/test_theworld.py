"""The fused forward: equal to Gemma 3 with the world off, packed equal to separate, no leak between samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tests.models.conftest import make_sample, packed, padded
from tests.tiny import IMAGE, IMAGE_TOKENS, WORLD_TOKENS, inputs, make_model, tiny_config
from theworld.models.theworld import TheWorld
from theworld.types import IGNORE_INDEX, Batch, TokenType


def three_samples(**settings):
    return [make_sample(n, text=5 + 3 * i, answer=3 + i, seed=i, **settings) for i, n in enumerate("abc")]


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("image", [True, False])
def test_world_off_is_gemma(side, image):
    model = make_model(enable_world=False)
    batch = padded(three_samples(world=False, image=image), side)
    mask = (batch.document_ids >= 0).long()
    theirs = model.gemma(
        input_ids=batch.input_ids,
        pixel_values=batch.pixel_values if image else None,
        attention_mask=mask,
        token_type_ids=batch.token_type_ids if image else None,
        position_ids=batch.position_ids,
    ).logits
    for arguments in ({"document_ids": batch.document_ids}, {"attention_mask": mask}):
        ours = model(batch.input_ids, pixel_values=batch.pixel_values, **arguments).logits
        assert torch.equal(ours[mask.bool()], theirs[mask.bool()])
    assert theirs.std() > 0.1


@torch.no_grad()
def test_unpadded_text_is_gemma():
    model = make_model(enable_world=False)
    ids = torch.randint(16, 64, (2, 30), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids).logits, model.gemma(input_ids=ids).logits, atol=1e-6, rtol=0)


def test_loss_is_gemmas_with_the_world_off():
    model = make_model(enable_world=False)
    batch = padded(three_samples(world=False), "right")
    ours = model(**inputs(batch, labels=True))
    theirs = model.gemma(
        input_ids=batch.input_ids,
        pixel_values=batch.pixel_values,
        attention_mask=(batch.document_ids >= 0).long(),
        token_type_ids=batch.token_type_ids,
        labels=batch.labels,
    ).loss
    assert ours.logits is None
    assert ours.num_target_tokens == 4 + 5 + 6
    torch.testing.assert_close(ours.loss, theirs, atol=1e-5, rtol=0)
    divided = model(**inputs(batch, labels=True), num_items_in_batch=30).loss
    torch.testing.assert_close(divided, ours.loss / 2)


@torch.no_grad()
@pytest.mark.parametrize("bidirectional_world", [False, True])
def test_packed_equals_separate(bidirectional_world):
    model = make_model(bidirectional_world=bidirectional_world)
    samples = three_samples()
    logits = model(**inputs(packed(samples, 96))).logits[0]
    at = 0
    for sample in samples:
        alone = model(
            sample.input_ids[None], pixel_values=sample.pixel_values, world_pixel_values=sample.world_pixel_values
        ).logits[0]
        torch.testing.assert_close(logits[at : at + len(alone)], alone, atol=1e-5, rtol=0)
        at += len(alone)


def test_packed_equals_separate_gradients():
    model = make_model()
    samples = three_samples()
    parameters = list(model.cosmos_encoder.projector.parameters())
    packed_sum = model(**inputs(packed(samples, 96), labels=True)).loss_sum
    together = torch.autograd.grad(packed_sum, parameters)
    sums = [model(**inputs(packed([s], len(s.input_ids)), labels=True)).loss_sum for s in samples]
    apart = torch.autograd.grad(sum(sums), parameters)
    torch.testing.assert_close(packed_sum, sum(sums), atol=1e-4, rtol=0)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
        assert one.abs().max() > 1e-3


@torch.no_grad()
def test_perturbing_one_sample_changes_no_other(model):
    samples = three_samples()
    batch = packed(samples, 96)
    before = model(**inputs(batch)).logits[0]
    documents = batch.document_ids[0]
    middle = torch.nonzero(documents == 1).flatten()
    for changed, first in _perturbations(batch, middle):
        after = model(**inputs(changed)).logits[0]
        same = (before == after).all(dim=-1)
        assert same[documents != 1].all()
        assert same[middle[:first]].all()
        assert not same[middle[first:]].any()


def _perturbations(batch: Batch, middle: torch.Tensor):
    """(batch with the middle sample changed, offset in the sample of the first token that must differ)."""
    ids = batch.input_ids.clone()
    text = 1 + WORLD_TOKENS + 2 + 1 + IMAGE_TOKENS + 2 + 1
    ids[0, middle[text]] = 16 + (ids[0, middle[text]] - 15) % 48
    yield replace(batch, input_ids=ids), text
    pixels = batch.pixel_values.clone()
    pixels[1] = -pixels[1]
    yield replace(batch, pixel_values=pixels), 1 + WORLD_TOKENS + 2 + 2
    world = batch.world_pixel_values.clone()
    world[1] = -world[1]
    yield replace(batch, world_pixel_values=world), 2


@torch.no_grad()
def test_the_leak_test_can_fail(model):
    """Positive control: as one document, the same row does leak."""
    batch = packed(three_samples(), 96)
    batch = replace(batch, document_ids=torch.zeros_like(batch.document_ids))
    changed, _ = next(_perturbations(batch, torch.nonzero(batch.position_ids[0] == 0).flatten()[1] + torch.arange(30)))
    before, after = model(**inputs(batch)).logits[0], model(**inputs(changed)).logits[0]
    assert (before != after).any(dim=-1).sum() > 20


@torch.no_grad()
def test_the_world_is_seen(model):
    """Zeroed frames and swapped frames change the logits of every target."""
    batch = packed(three_samples()[:2], 64)
    before = model(**inputs(batch)).logits
    worlds = batch.world_pixel_values
    for other in (torch.zeros_like(worlds), worlds.flip(0)):
        after = model(**inputs(replace(batch, world_pixel_values=other))).logits
        assert (before - after)[0, batch.target_positions].abs().amax(dim=-1).min() > 1e-3


@torch.no_grad()
def test_world_tokens_are_scaled_like_text(model):
    text = model.get_input_embeddings()(torch.arange(64))
    expected = text.square().mean().sqrt()
    worlds = model.cosmos_encoder(torch.rand(2, 3, 16, 16) * 2 - 1)
    torch.testing.assert_close(worlds.square().mean(-1).sqrt(), expected.expand(2, 4), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_types_and_targets_are_found_when_not_given(model):
    batch = packed(three_samples(), 96)
    given = inputs(batch, labels=True)
    found = model(
        batch.input_ids,
        document_ids=batch.document_ids,
        pixel_values=batch.pixel_values,
        world_pixel_values=batch.world_pixel_values,
        labels=batch.labels,
        logits_to_keep=0,
    )
    expected = model(**given, logits_to_keep=0)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.loss, expected.loss)
    rows = F.cross_entropy(expected.logits[0, :-1], batch.labels[0, 1:], ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(expected.loss, rows, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pixel_values", lambda v: v[:2], "found 12 image placeholders, expected 8 for 2 frames of 4 tokens"),
        ("pixel_values", lambda v: v[:0], "found 12 image placeholders, expected 0"),
        ("world_pixel_values", lambda v: v[:1], "found 12 world placeholders, expected 4 for 1 frames of 4 tokens"),
        ("world_pixel_values", lambda v: v.repeat(1, 1, 2, 1), "found 12 world placeholders, expected 24 for 3 frames"),
    ],
)
def test_wrong_number_of_features(model, field, value, message):
    batch = packed(three_samples(), 96)
    with pytest.raises(ValueError, match=message):
        model(**inputs(replace(batch, **{field: value(getattr(batch, field))})))


def test_world_frames_with_the_world_off():
    model = make_model(enable_world=False)
    batch = packed(three_samples(), 96)
    with pytest.raises(ValueError, match="found 3 world frames, expected none with enable_world=False"):
        model(**inputs(batch))


def test_two_ways_to_say_padding(model):
    batch = packed(three_samples(), 96)
    with pytest.raises(ValueError, match="found document_ids and attention_mask"):
        model(**inputs(batch), attention_mask=torch.ones_like(batch.input_ids))


def test_only_unfrozen_parts_get_gradients(model):
    """Every group gets a gradient from the loss; the VAE's temporal convolutions see no second frame."""
    batch = packed(three_samples(), 96)
    model(**inputs(batch, labels=True)).loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    model.zero_grad()
    assert without
    assert all("time_conv" in n for n in without)


def test_image_token_in_the_text_is_counted(model):
    """A stray placeholder is an error, not a silently shifted image."""
    batch = packed(three_samples(), 96)
    ids = batch.input_ids.clone()
    ids[0, 0] = IMAGE
    types = model.token_types(ids)
    assert int((types == TokenType.IMAGE).sum()) == 13
    with pytest.raises(ValueError, match="found 13 image placeholders, expected 12"):
        model(**inputs(replace(batch, input_ids=ids, token_type_ids=types)))


def test_logits_to_keep(model):
    batch = packed(three_samples(), 96)
    every = model(**inputs(batch)).logits
    some = torch.tensor([3, 50])
    assert torch.equal(model(**inputs(batch), logits_to_keep=2).logits, every[:, -2:])
    torch.testing.assert_close(model(**inputs(batch), logits_to_keep=some).logits, every[:, some])


def test_gradient_checkpointing_changes_nothing():
    model = make_model().train()
    batch = packed(three_samples(), 96)
    parameters = list(model.cosmos_encoder.projector.parameters())
    before = torch.autograd.grad(model(**inputs(batch, labels=True)).loss, parameters)
    model.gradient_checkpointing_enable()
    calls = []
    model.gemma.model.language_model.layers[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    after = torch.autograd.grad(model(**inputs(batch, labels=True)).loss, parameters)
    assert len(calls) == 2
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_other_attention_backends_are_refused():
    config = tiny_config()
    config._attn_implementation = "eager"
    with pytest.raises(ValueError, match="found attn_implementation='eager', expected 'sdpa'"):
        TheWorld(config)

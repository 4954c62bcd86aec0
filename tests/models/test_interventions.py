"""Interventions: nothing when off, exactly what they say when on, in the prompt and in what is generated after it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.conftest import make_sample, packed, padded
from tests.models.test_generation import greedy
from tests.tiny import inputs, make_model
from theworld.models.attention.backends import layer_masks
from theworld.models.decoder import decode
from theworld.models.fusion import fill_placeholders
from theworld.models.image_features import image_features, image_tokens
from theworld.models.interventions import Intervention, intervene
from theworld.models.live_rows import with_live_rows
from theworld.types import TokenType


class CountOps(TorchDispatchMode):
    """Counts every operator that is called."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def samples(same_length: bool = False):
    return [make_sample(n, text=4 + (0 if same_length else 5 * i), answer=3, seed=10 + i) for i, n in enumerate("abc")]


def blocked(batch):
    return Intervention(blocked=batch.token_type_ids == TokenType.WORLD)


@torch.no_grad()
def logits(model, batch, intervention=None):
    with intervene(model, intervention):
        return model(**inputs(batch)).logits


@torch.no_grad()
def counted(model, batch, intervention=None):
    with CountOps() as ops, intervene(model, intervention):
        found = model(**inputs(batch)).logits
    return found, ops.calls


@torch.no_grad()
def parts_alone(model, batch):
    """The forward put together from its parts, without a place for interventions."""
    with CountOps() as ops:
        images = image_tokens(model.gemma, batch.pixel_values)
        worlds = model.cosmos_encoder(batch.world_pixel_values)
        embeds = model.get_input_embeddings()(batch.input_ids)
        for kind, tokens in ((TokenType.IMAGE, images), (TokenType.WORLD, worlds)):
            embeds = fill_placeholders(embeds, batch.token_type_ids == kind, tokens, what="some")
        bounds = {"num_images": len(images), "max_documents": 9}
        masks = layer_masks("sdpa", batch.document_ids, batch.token_type_ids, model.config, **bounds)
        decoder = model.gemma.model.language_model
        hidden, _ = decode(decoder, embeds, batch.position_ids, masks, cache=None, use_cache=False)
        found = model.gemma.lm_head(hidden[:, 0:])
    return found, ops.calls


def test_off_is_free(model):
    """The bits and operators of the parts alone; the same before, during an empty one, and after one was in force."""
    batch = padded(samples())
    before, calls = counted(model, batch)
    empty, empty_calls = counted(model, batch, Intervention())
    changed, changed_calls = counted(model, batch, blocked(batch))
    after, after_calls = counted(model, batch)
    reference, reference_calls = parts_alone(model, batch)
    assert torch.equal(before, reference)
    assert calls == reference_calls
    assert torch.equal(before, empty)
    assert torch.equal(before, after)
    assert calls == empty_calls == after_calls
    assert not torch.equal(before, changed)  # controls: the comparison and the counter see one that is on
    assert changed_calls != calls


@torch.no_grad()
def test_replaying_what_the_towers_made_changes_no_bit(model):
    batch = padded(samples())
    replay = Intervention(
        world_tokens=model.cosmos_encoder(batch.world_pixel_values),
        image_features=image_features(model.gemma, batch.pixel_values),
    )
    given = inputs(batch) | {"pixel_values": batch.pixel_values[:0], "world_pixel_values": batch.world_pixel_values[:0]}
    with intervene(model, replay):
        replayed = model(**given).logits
    assert torch.equal(replayed, logits(model, batch))


@torch.no_grad()
def test_other_tokens_are_those_of_other_inputs(model):
    batch, other = padded(samples()), padded([make_sample(n, text=4, answer=3, seed=50) for n in "abc"])
    tokens = Intervention(world_tokens=model.cosmos_encoder(other.world_pixel_values))
    features = Intervention(image_features=image_features(model.gemma, other.pixel_values))
    for intervention, field in ((tokens, "world_pixel_values"), (features, "pixel_values")):
        expected = model(**(inputs(batch) | {field: getattr(other, field)})).logits
        assert torch.equal(logits(model, batch, intervention), expected)
        assert not torch.equal(expected, logits(model, batch))


@pytest.mark.parametrize("side", ["left", "right"])
def test_blocked_world_tokens_reach_no_later_token(model, side):
    batch = padded(samples(), side=side)
    changed = inputs(batch) | {"world_pixel_values": -batch.world_pixel_values}
    is_world = batch.token_type_ids == TokenType.WORLD
    is_later = (is_world.cumsum(1) == is_world.sum(1, keepdim=True)) & ~is_world & (batch.document_ids >= 0)
    with torch.no_grad(), intervene(model, blocked(batch)):
        one, other = model(**inputs(batch)).logits, model(**changed).logits
    assert torch.equal(one[is_later], other[is_later])
    assert not torch.equal(one[is_world], other[is_world])  # they do see themselves
    with torch.no_grad():  # control: unblocked, every later row answers to them
        assert (model(**changed).logits - model(**inputs(batch)).logits)[is_later].abs().amax(-1).min() > 1e-5


def test_blocked_changes_neither_earlier_rows_nor_world_rows(model):
    batch = padded(samples(), side="right")
    is_world = batch.token_type_ids == TokenType.WORLD
    real, found = logits(model, batch), logits(model, batch, blocked(batch))
    torch.testing.assert_close(found[is_world], real[is_world], atol=1e-6, rtol=0)
    assert torch.equal(found[:, 0], real[:, 0])


@pytest.mark.parametrize("same_length", [False, True], ids=["padded", "no padding"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
def test_blocked_holds_in_every_step_of_generation(same_length, bidirectional):
    """Cached and uncached agree, and the last of 14 steps does not answer to the frames."""
    model = make_model(bidirectional_world=bidirectional)
    batch = padded([make_sample(s.id, text=7, answer=0, seed=i) for i, s in enumerate(samples())])
    if not same_length:
        batch = padded([make_sample(n, text=4 + 5 * i, answer=0, seed=i) for i, n in enumerate("abc")])
    with intervene(model, blocked(batch)):
        tokens, found = greedy(model, batch)
        _, uncached = greedy(model, batch, use_cache=False)
        _, changed = greedy(model, batch, world_pixel_values=-batch.world_pixel_values)
    torch.testing.assert_close(found, uncached, atol=1e-4, rtol=0)
    assert torch.equal(found, changed)
    _, unblocked = greedy(model, batch)
    assert not torch.equal(found, unblocked)
    assert tokens.shape[1] == 14


def test_blocked_needs_a_mask_that_can_be_read(model):
    batch = padded(samples())
    model.attention_backend = "flex"
    try:
        with pytest.raises(ValueError, match="set model.attention_backend to 'sdpa'"):
            logits(model, batch, blocked(batch))
    finally:
        model.attention_backend = "sdpa"


def test_one_at_a_time(model):
    with (
        intervene(model, Intervention()),
        pytest.raises(ValueError, match="found an intervention in force"),
        intervene(model, Intervention()),
    ):
        pass
    assert model.intervention is None


def test_an_error_inside_ends_it(model):
    with pytest.raises(RuntimeError, match="inside"), intervene(model, Intervention()):
        raise RuntimeError("inside")
    assert model.intervention is None


def test_not_with_the_rows_of_training(model):
    parts = samples()
    batch = with_live_rows(packed(parts, sum(len(s.input_ids) for s in parts) + 3), model.config)
    assert batch.live_rows is not None
    with intervene(model, Intervention()), pytest.raises(ValueError, match="found live_rows with logits_to_keep or an"):
        model(**inputs(batch, labels=True), live_rows=batch.live_rows)

"""Attention mass against sums done by hand: weights, norms, rotation, masks and softmax from the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models.conftest import make_sample, padded
from tests.tiny import inputs, make_model
from theworld.evaluation.audit.attention_mass import attention_mass
from theworld.types import TokenType

SAMPLES = [make_sample("a", text=6, answer=3, seed=1), make_sample("b", text=9, answer=2, seed=2)]
WINDOW, HEADS, GROUPS, WIDTH = 9, 4, 2, 8


def by_hand(model, batch, number: int) -> tuple[float, float, float]:
    """World, image and uniform share in layer `number`, in numpy, from the hidden states that go into it."""
    layer = model.gemma.model.language_model.layers[number]
    seen = {}
    handle = layer.self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs(batch))
    handle.remove()
    attention = layer.self_attn
    hidden = seen["hidden_states"].double().numpy()  # (B, T, D)
    theta = (
        10_000.0 if attention.is_sliding else float(attention.config.rope_parameters["full_attention"]["rope_theta"])
    )
    world, image, uniform = [], [], []
    for flat in batch.target_positions.tolist():
        row, q = divmod(flat, batch.input_ids.shape[1])
        types, documents = batch.token_type_ids[row].tolist(), batch.document_ids[row].tolist()
        positions = batch.position_ids[row].tolist()
        visible = [
            k
            for k in range(len(types))
            if k <= q and documents[k] == documents[q] and (not attention.is_sliding or k > q - WINDOW)
        ]
        for head in range(HEADS):
            query = rotated(normed(attention.q_proj, attention.q_norm, hidden[row, q], head), positions[q], theta)
            scores = [
                query
                @ rotated(
                    normed(attention.k_proj, attention.k_norm, hidden[row, k], head * GROUPS // HEADS),
                    positions[k],
                    theta,
                )
                for k in visible
            ]
            weights = np.exp(np.array(scores) * WIDTH**-0.5)
            weights /= weights.sum()
            world.append(sum(w for k, w in zip(visible, weights, strict=True) if types[k] == TokenType.WORLD))
            image.append(sum(w for k, w in zip(visible, weights, strict=True) if types[k] == TokenType.IMAGE))
        uniform.append(sum(types[k] == TokenType.WORLD for k in visible) / len(visible))
    return float(np.mean(world)), float(np.mean(image)), float(np.mean(uniform))


def normed(projection, norm, hidden, head) -> np.ndarray:
    weight = projection.weight.detach().double().numpy()[head * WIDTH : (head + 1) * WIDTH]
    projected = weight @ hidden
    scale = 1 + norm.weight.detach().double().numpy()
    return projected / np.sqrt((projected**2).mean() + 1e-6) * scale


def rotated(vector, position, theta) -> np.ndarray:
    half = WIDTH // 2
    angles = position * theta ** (-np.arange(half) * 2 / WIDTH)
    first, second = vector[:half], vector[half:]
    return np.concatenate(
        [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)]
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("number", [0, 4, 5])
def test_it_is_the_softmax_of_the_models_own_queries_and_keys(model, side, number):
    batch = padded(SAMPLES, side=side)
    found = attention_mass(model, [batch]).layers[number]
    expected = by_hand(model, batch, number)
    assert (found.world, found.image, found.uniform_world) == pytest.approx(expected, abs=1e-5)
    assert found.kind == ("full_attention" if number == 5 else "sliding_attention")
    if number == 5:  # control: the numbers are no trivial ones
        assert 0.02 < found.world < 0.98
        assert abs(found.world - found.uniform_world) > 1e-3


def test_one_batch_or_two(model):
    together = attention_mass(model, [padded(SAMPLES, side="right")])
    apart = attention_mass(model, [padded([sample]) for sample in SAMPLES])
    for one, other in zip(together.layers, apart.layers, strict=True):
        assert (one.world, one.image) == pytest.approx((other.world, other.image), abs=1e-5)


def test_the_model_computes_as_before(model):
    batch = padded(SAMPLES)
    with torch.no_grad():
        before = model(**inputs(batch)).logits
        attention_mass(model, [batch])
        assert torch.equal(model(**inputs(batch)).logits, before)
    assert model.gemma.model.language_model.config._attn_implementation == "theworld"


def test_reach_goes_through_all_layers(model):
    """One window of 9 ends before the answer, but six layers one after another, and the global one, do not."""
    long = padded([make_sample("long", text=30, answer=2, seed=3)])
    found = attention_mass(model, [long])
    assert found.layers[0].world == 0.0
    assert found.layers[0].uniform_world == 0.0
    assert found.is_reachable


def test_too_short_windows_reach_nothing():
    from tests.tiny import gemma_config

    short = make_model(gemma_config=gemma_config(num_hidden_layers=2, sliding_window=4))
    found = attention_mass(short, [padded([make_sample("long", text=30, answer=2, seed=3)])])
    assert not found.is_reachable
    assert [layer.world for layer in found.layers] == [0.0, 0.0]


def test_another_backend_is_refused(model):
    model.attention_backend = "flex"
    try:
        with pytest.raises(ValueError, match="expected 'sdpa'"):
            attention_mass(model, [padded(SAMPLES)])
    finally:
        model.attention_backend = "sdpa"


@pytest.fixture(scope="module")
def model():
    return make_model()

"""Leaving out rows that no target needs changes neither hidden states at the targets nor gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.models.conftest import make_sample, packed, padded
from tests.tiny import IMAGE_TOKENS, gemma_config, inputs, make_model
from theworld.models.attention.backends import layer_masks
from theworld.models.decoder import decode_live
from theworld.models.execution import set_execution
from theworld.models.live_rows import plan_live_rows, trimmed_layers
from theworld.types import IGNORE_INDEX, Batch, LiveRows, TokenType

WINDOW = 9


def config_of(layers: int):
    return gemma_config(num_hidden_layers=layers)


def batch_of(kind: str) -> Batch:
    samples = [make_sample(name, text=14 + 3 * i, answer=3 + i, seed=i) for i, name in enumerate("abc")]
    return packed(samples, 128) if kind == "packed" else padded(samples, kind)


def live_rows(batch: Batch, config, round_to: int | None = 1) -> LiveRows:
    return plan_live_rows(
        batch.document_ids,
        batch.token_type_ids,
        batch.target_positions,
        config.text_config,
        image_tokens=IMAGE_TOKENS,
        round_to=round_to,
    )


def both_ways(model, batch: Batch, live: LiveRows) -> tuple[Tensor, Tensor, Tensor]:
    """The same random embeddings, and hidden states at the targets without and with rows left out."""
    set_execution(model, compiled=False, recompute="none")
    decoder = model.gemma.model.language_model
    generator = torch.Generator().manual_seed(0)
    shape = (*batch.input_ids.shape, model.config.hidden_size)
    embeds = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    masks = layer_masks("sdpa", batch.document_ids, batch.token_type_ids, model.config, num_images=3, max_documents=9)
    whole = decoder(inputs_embeds=embeds, attention_mask=masks, position_ids=batch.position_ids).last_hidden_state

    trimmed = decode_live(
        decoder, embeds, batch.position_ids, masks, live, masks_of=partial(model._masks, max_documents=9)
    )
    return embeds, whole.flatten(0, 1)[batch.target_positions], trimmed[0, : len(batch.target_positions)]


@pytest.mark.parametrize("round_to", [1, 16])
@pytest.mark.parametrize("layers", [8, 10])
@pytest.mark.parametrize("kind", ["packed", "left", "right"])
def test_hidden_states_and_gradients_are_the_same(kind: str, layers: int, round_to: int) -> None:
    model = make_model(gemma_config=config_of(layers)).double()
    batch = batch_of(kind)
    live = live_rows(batch, model.config.gemma_config, round_to)
    assert len(live.levels) + 1 == trimmed_layers(model.config.get_text_config()) == layers - 5
    embeds, whole, trimmed = both_ways(model, batch, live)
    torch.testing.assert_close(trimmed, whole, rtol=1e-9, atol=1e-9)
    grad = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (expected,), (found,) = (
        torch.autograd.grad(states, embeds, grad, retain_graph=True) for states in (whole, trimmed)
    )
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("backend", ["sdpa", "flash"])
def test_the_loss_of_the_model_is_the_same(backend: str) -> None:
    model = make_model(gemma_config=config_of(8))
    batch = batch_of("packed")
    plain = model(**inputs(batch, labels=True))
    model.attention_backend = backend
    set_execution(model, compiled=False, recompute="none")
    trimmed = model(**inputs(batch, labels=True), live_rows=live_rows(batch, model.config.gemma_config, 16))
    torch.testing.assert_close(trimmed.loss, plain.loss, rtol=1e-6, atol=1e-6)
    parameters = list(model.cosmos_encoder.projector.parameters())
    ours, theirs = (torch.autograd.grad(output.loss, parameters) for output in (trimmed, plain))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [6, 8])
def test_layers_that_nothing_has_set_up_leave_rows_out_too(layers: int) -> None:
    model, batch = make_model(gemma_config=config_of(layers)), batch_of("packed")
    plain = model(**inputs(batch, labels=True)).loss
    live = live_rows(batch, model.config.gemma_config, None)
    torch.testing.assert_close(model(**inputs(batch, labels=True), live_rows=live).loss, plain, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="found live_rows"):
        model(**inputs(batch), live_rows=live)
    with pytest.raises(ValueError, match="found live_rows"):
        model(**inputs(batch, labels=True), live_rows=live, logits_to_keep=0)


def test_comparison_can_fail() -> None:
    """Control: one row fewer before the targets, and the hidden states differ."""
    model = make_model(gemma_config=config_of(8)).double()
    batch = batch_of("packed")
    short = config_of(8)
    short.text_config.sliding_window = WINDOW - 1
    _, whole, trimmed = both_ways(model, batch, live_rows(batch, short))
    assert (whole - trimmed).abs().max() > 1e-6


def test_rows_are_the_window_before_the_first_target_and_whole_images() -> None:
    types = torch.tensor([[0] * 20 + [int(TokenType.IMAGE)] * 4 + [0] * 26])
    documents = torch.tensor([[0] * 45 + [1] * 5])
    config = config_of(8).text_config
    targets = torch.tensor([40, 42])
    live = plan_live_rows(documents, types, targets, config, image_tokens=4, round_to=1)
    last, second = live.levels[1], live.levels[0]
    assert second.rows.tolist() == list(range(40 - 16, 43))
    assert (second.rows[last.rows]).tolist() == list(range(40 - 8, 43))
    assert live.target_rows.tolist() == [8, 10]
    assert second.num_images == 0
    earlier = plan_live_rows(documents, types, torch.tensor([38]), config, image_tokens=4, round_to=1)
    assert earlier.levels[0].rows.tolist() == list(range(20, 39))  # 38 - 16 = 22 lies inside the image
    assert earlier.levels[0].num_images == 1


def test_a_document_without_targets_is_left_out_and_levels_are_rounded_up() -> None:
    batch = packed([make_sample("a", text=20, answer=0, seed=0), make_sample("b", text=20, answer=2, seed=1)], 96)
    assert (batch.labels != IGNORE_INDEX).sum() == 3
    live = live_rows(batch, config_of(8), round_to=32)
    for level in live.levels:
        assert len(level.rows) % 32 == 0
        assert set(level.document_ids.flatten().tolist()) == {1, -1}
    assert len(live.target_rows) == 32


def test_a_row_goes_into_sixteenths_of_the_batch_by_default() -> None:
    batch = batch_of("packed")
    live = live_rows(batch, config_of(8), None)
    assert {len(level.rows) % 8 for level in live.levels} == {0}
    assert len(live.target_rows) == -(-batch.num_target_tokens // 8) * 8


def test_layers_after_the_last_global_one_and_it_leave_rows_out() -> None:
    assert trimmed_layers(config_of(6).text_config) == 1
    assert trimmed_layers(config_of(10).text_config) == 5
    assert trimmed_layers(config_of(4).text_config) == 4


@pytest.mark.parametrize("layers", [4, 6])
def test_without_layers_behind_a_global_one(layers: int) -> None:
    model = make_model(gemma_config=config_of(layers)).double()
    batch = batch_of("packed")
    _, whole, trimmed = both_ways(model, batch, live_rows(batch, model.config.gemma_config))
    torch.testing.assert_close(trimmed, whole, rtol=1e-9, atol=1e-9)


def test_live_rows_move_with_their_batch() -> None:
    batch = batch_of("packed")
    live = live_rows(batch, config_of(8))
    moved = replace(batch, live_rows=live).to("meta").live_rows
    assert moved.target_rows.is_meta
    assert [level.rows.is_meta and level.document_ids.is_meta for level in moved.levels] == [True, True]
    assert [level.num_images for level in moved.levels] == [level.num_images for level in live.levels]

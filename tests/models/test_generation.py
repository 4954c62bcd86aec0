"""The cache: prefill and decode agree with the full forward, and a batch with its rows alone."""

from __future__ import annotations

import pytest
import torch

from tests.models.conftest import make_sample, padded
from tests.tiny import inputs, make_model

NEW_TOKENS = 14


@pytest.fixture(scope="module", params=[False, True], ids=["causal world", "bidirectional world"])
def model(request):
    return make_model(bidirectional_world=request.param)


def prompts():
    return [make_sample(n, text=4 + 5 * i, answer=0, seed=10 + i) for i, n in enumerate("abc")]


def generation_inputs(batch):
    names = ("input_ids", "token_type_ids", "pixel_values", "world_pixel_values")
    return {n: getattr(batch, n) for n in names} | {"attention_mask": (batch.document_ids >= 0).long()}


def greedy(model, batch, **settings):
    """Greedy tokens int64[B, new] and the logits that chose them float[B, new, V]."""
    out = model.generate(
        **(generation_inputs(batch) | settings),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return out.sequences[:, batch.input_ids.shape[1] :], torch.stack(out.logits, dim=1)


@torch.no_grad()
def test_prefill_and_decode_equal_full_forward(model):
    """Over prompts and answers longer than the window of 9, with left padding."""
    batch = padded(prompts())
    answers = torch.randint(16, 64, (3, NEW_TOKENS), generator=torch.Generator().manual_seed(0))
    mask = (batch.document_ids >= 0).long()
    whole = torch.cat([batch.input_ids, answers], dim=1)
    whole_mask = torch.cat([mask, torch.ones_like(answers)], dim=1)
    full = model(
        whole,
        attention_mask=whole_mask,
        pixel_values=batch.pixel_values,
        world_pixel_values=batch.world_pixel_values,
    ).logits[:, -NEW_TOKENS - 1 :]
    step = model(**inputs(batch), use_cache=True, logits_to_keep=1)
    logits = [step.logits]
    for i in range(NEW_TOKENS):
        seen = whole_mask[:, : batch.input_ids.shape[1] + i + 1]
        step = model(
            answers[:, i : i + 1],
            attention_mask=seen,
            position_ids=seen.sum(dim=1, keepdim=True) - 1,
            past_key_values=step.past_key_values,
            use_cache=True,
        )
        logits.append(step.logits)
    stepwise = torch.cat(logits, dim=1)
    torch.testing.assert_close(stepwise, full, atol=1e-4, rtol=0)
    assert torch.equal(stepwise.argmax(-1), full.argmax(-1))


def test_batched_equals_single(model):
    samples = prompts()
    together, logits = greedy(model, padded(samples))
    for row, sample in enumerate(samples):
        alone, alone_logits = greedy(model, padded([sample]))
        assert torch.equal(together[row], alone[0])
        torch.testing.assert_close(logits[row], alone_logits[0], atol=1e-4, rtol=0)
    assert len({tuple(row.tolist()) for row in together}) == 3


def test_cached_equals_uncached(model):
    batch = padded(prompts())
    cached, cached_logits = greedy(model, batch)
    uncached, uncached_logits = greedy(model, batch, use_cache=False)
    assert torch.equal(cached, uncached)
    torch.testing.assert_close(cached_logits, uncached_logits, atol=1e-4, rtol=0)


def test_images_and_frames_are_encoded_once(model):
    calls = []
    handles = [
        m.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
        for m in (model.cosmos_encoder, model.gemma.model.vision_tower)
    ]
    greedy(model, padded(prompts()))
    for handle in handles:
        handle.remove()
    assert sorted(calls) == ["CosmosEncoder", "SiglipVisionModel"]


def test_the_last_step_still_sees_the_world(model):
    batch = padded(prompts())
    _, before = greedy(model, batch)
    _, after = greedy(model, batch, world_pixel_values=-batch.world_pixel_values)
    assert (before - after)[:, -1].abs().amax(dim=-1).min() > 1e-4


def test_stops_at_the_end_of_turn(model):
    assert model.generation_config.eos_token_id == [1, 5]


def test_document_ids_are_refused(model):
    batch = padded(prompts())
    with pytest.raises(ValueError, match=r"pass attention_mask=\(document_ids != -1\).long\(\)"):
        model.generate(**generation_inputs(batch), document_ids=batch.document_ids, max_new_tokens=1)


def test_static_cache_is_refused(model):
    with pytest.raises(ValueError, match="found a static cache"):
        greedy(model, padded(prompts()), cache_implementation="static")


def test_images_after_the_prefill_are_refused(model):
    batch = padded(prompts())
    cache = model(**inputs(batch), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="with a filled cache"):
        model(batch.input_ids[:, :1], pixel_values=batch.pixel_values, past_key_values=cache)

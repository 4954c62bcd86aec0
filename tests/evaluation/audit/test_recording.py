"""The audit's answers are those of every other command: greedy, and decided without other rows where it is close."""

from __future__ import annotations

import pytest
import torch

from theworld.evaluation.answering import answer
from theworld.evaluation.audit.arms import ARMS


def audited_with_prompts(audited, batch_size):
    """What the audit finds, and how many rows each prompt that was answered had."""
    model, rows = audited.model(), []

    def note(module, args, given):
        if given.get("input_ids") is not None and given["input_ids"].shape[1] > 1:  # of `generate`, before new tokens
            rows.append(len(given["input_ids"]))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        return audited.run(model, batch_size=batch_size), rows
    finally:
        hook.remove()


@pytest.fixture(scope="module")
def one_by_one(audited):
    """Batches of one prompt."""
    return audited_with_prompts(audited, 1)[0]


def test_near_ties_are_decided_alone_in_every_arm(audited, findings, one_by_one, monkeypatch):
    """Where everything counts as near: each row with its own tokens, image and blocked places, and without padding."""
    monkeypatch.setattr("theworld.evaluation.answering.NEAR_TIE", torch.inf)
    alone, rows = audited_with_prompts(audited, 3)
    of_an_arm = [3, 1, 1, 1, 2, 1, 1, 2, 1, 1]
    first_again = [3, 1, 1, 1]  # whether what the towers made can be replayed
    assert rows == of_an_arm + first_again + of_an_arm * (len(ARMS) - 1)
    for arm in ARMS:
        assert alone.answers[arm].texts == one_by_one.answers[arm].texts, arm
        assert alone.answers[arm].logit_differences == findings.answers[arm].logit_differences, arm
    assert alone.replay_difference == 0.0
    assert len({alone.answers[arm].texts for arm in ARMS}) > 3


def test_real_answers_are_those_of_a_benchmark(audited, findings):
    samples, model = audited.samples(), audited.model()
    prompts = [samples.prompt(number) for number in range(len(samples))]
    answers = answer(model, samples.processor, prompts, batch_size=4, max_new_tokens=4)
    assert findings.answers["real"].texts == tuple(one.text for one in answers)

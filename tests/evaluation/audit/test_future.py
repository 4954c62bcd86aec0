"""The arm that takes the future away: its inputs, its verdict, and what is said when it changes nothing."""

from __future__ import annotations

import json
import re

import pytest
import torch

from tests.evaluation.audit.conftest import NUM_ROWS
from tests.tiny import WORLD_TOKENS, NegativeFrames
from theworld.evaluation.audit.arms import ARMS, FUTURE, Arms, arms_of
from theworld.evaluation.audit.comparison import Answers, compare, judge
from theworld.evaluation.audit.page import write_page
from theworld.models.interventions import Intervention, future_is_present
from theworld.models.world_sources.source import WorldSource
from theworld.types import Question

STEPS, FRAMES = 2, 3


class StillFrames(NegativeFrames):
    """A future that repeats the present."""

    def encode(self, pixels, keys):
        return future_is_present(super().encode(pixels, keys)).contiguous()


def model_with(audited, source: WorldSource):
    model = audited.model(num_world_steps=STEPS)
    torch.nn.init.normal_(model.cosmos_encoder.projector.temporal_embedding)
    model.cosmos_encoder.source = source
    return model


@pytest.fixture(scope="module")
def model(audited):
    return model_with(audited, NegativeFrames(FRAMES))


@pytest.fixture(scope="module")
def findings(audited, model):
    return audited.run(model, audited.samples(frames=FRAMES))


def test_future_frames_are_copies_of_the_present_one():
    latents = torch.randn(2, 16, FRAMES, 2, 2)
    found = future_is_present(latents)
    assert torch.equal(found, torch.stack([latents[:, :, 0]] * FRAMES, dim=2))
    with pytest.raises(ValueError, match="latents of 1 frame for the arm future_is_present, expected several: .*=0"):
        future_is_present(latents[:, :, :1])


def test_the_arm_gives_the_model_the_present_at_every_step(audited, model, findings, monkeypatch):
    """Projected as it is, so that the temporal embedding still tells the frames apart."""
    given: list[Intervention] = []
    make = Arms.intervention

    def noted(arms, arm, group):
        made = make(arms, arm, group)
        given.extend([made] if arm == FUTURE else [])
        return made

    monkeypatch.setattr(Arms, "intervention", noted)
    samples = audited.samples(frames=FRAMES)
    audited.run(model, samples)
    tokens = torch.cat([intervention.world_tokens for intervention in given])  # (n, F·N, D)
    pixels = torch.cat([samples.prompt(number).world_pixel_values for number in range(len(samples))])
    still = NegativeFrames(1).encode(pixels, []).expand(-1, -1, FRAMES, -1, -1)
    with torch.no_grad():
        expected = model.cosmos_encoder.project(still.contiguous())
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)
    by_frame = tokens.unflatten(1, (FRAMES, WORLD_TOKENS))
    assert (by_frame[:, 0] - by_frame[:, 1]).abs().amax() > 1e-2
    assert findings.result(FUTURE).inputs_changed == findings.result(FUTURE).logits_changed == NUM_ROWS


def test_only_models_with_future_frames_have_it(audited, model, findings, tmp_path):
    assert list(arms_of(model)) == [*ARMS, FUTURE] == [result.arm for result in findings.results]
    assert list(arms_of(audited.model())) == list(ARMS)
    assert findings.errors == ()
    assert findings.replay_difference == 0.0
    assert findings.verdict.relies_on_future in (True, False)
    findings.write(tmp_path)
    write_page(findings, tmp_path)
    arm = json.loads((tmp_path / "audit.json").read_text())["arms"][FUTURE]
    assert "copies of the present one" in arm["means"]
    assert re.search(f"<th>{FUTURE}</th>", (tmp_path / "report.html").read_text())
    assert (tmp_path / "predictions" / f"{FUTURE}.jsonl").is_file()


def test_a_future_that_repeats_the_present_is_an_error(audited):
    (error,) = audited.run(model_with(audited, StillFrames(FRAMES)), audited.samples(frames=FRAMES)).errors
    assert error == f"{FUTURE}: found the same inputs as in the real arm: the world source repeats the present frame"


def test_a_model_of_frames_without_a_source_is_refused(audited):
    with pytest.raises(ValueError, match="no world source with num_world_steps=2"):
        audited.run(audited.model(num_world_steps=STEPS), audited.samples(frames=FRAMES))


@pytest.mark.parametrize("wrong", [0, 18])
def test_the_verdict_on_the_future(wrong: int):
    questions = [
        Question(
            id=str(n),
            image_id=str(n),
            question="Is it left?",
            answer="Yes.",
            qa_type="qualitative",
            qa_category="left_predicate",
        )
        for n in range(40)
    ]

    def answered(wrong: int = 0) -> Answers:
        return Answers(
            texts=("No.",) * wrong + ("Yes.",) * (40 - wrong), changes=(True,) * 40, logit_differences=(1.0,) * 40
        )

    arms = {arm: answered() for arm in ARMS}
    assert judge(compare(questions, arms, logit_tolerance=0.0), level=0.05).relies_on_future is None
    verdict = judge(compare(questions, arms | {FUTURE: answered(wrong)}, logit_tolerance=0.0), level=0.05)
    assert verdict.relies_on_future is (wrong > 0)
    assert verdict.relies_on_world is False
    start = "Relies" if wrong else "Does not rely"
    assert verdict.sentences[-1].startswith(f"{start} on future: with copies of the present frame")

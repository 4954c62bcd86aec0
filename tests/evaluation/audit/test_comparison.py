"""Statistics of the arms, and the verdict: content decides, presence is only mentioned."""

from __future__ import annotations

import pytest

from theworld.evaluation.audit.arms import ARMS, REAL
from theworld.evaluation.audit.comparison import Answers, compare, holm, judge

N = 40


@pytest.fixture
def questions(ask):
    answers = ("Yes.", "No.")
    return [
        ask("big_predicate", "Is Region [0] bigger than Region [1]?", answers[n % 2], id=str(n), image=str(n))
        for n in range(N)
    ]


def answered(questions, *, wrong: int = 0, logits: float = 1.0, changes: bool = True) -> Answers:
    """All right but the first `wrong`, which say the opposite."""
    flip = {"Yes.": "No.", "No.": "Yes."}
    texts = tuple(flip[q.answer] if n < wrong else q.answer for n, q in enumerate(questions))
    return Answers(texts=texts, changes=(changes,) * N, logit_differences=(logits,) * N)


def compared(questions, tolerance: float = 0.0, **wrong: Answers):
    arms = {arm: answered(questions) for arm in ARMS}
    arms[REAL] = answered(questions, logits=0.0, changes=False)
    return compare(questions, arms | wrong, logit_tolerance=tolerance)


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


def test_numbers_of_an_arm(questions):
    results = {r.arm: r for r in compared(questions, shuffled=answered(questions, wrong=18))}
    shuffled = results["shuffled"]
    assert (shuffled.correct, shuffled.only_real, shuffled.only_arm, shuffled.answers_changed) == (22, 18, 0, 18)
    assert shuffled.p_value == pytest.approx(2 * 0.5**18)
    assert shuffled.p_holm == pytest.approx(7 * 2 * 0.5**18)  # seven arms are compared with the real one
    assert shuffled.difference == pytest.approx(-18 / 40)
    assert shuffled.difference_interval.low < -18 / 40 < shuffled.difference_interval.high < 0
    assert results["mean"].p_holm == 1.0
    assert results[REAL].accuracy == 1.0


def test_an_arm_without_other_inputs_is_no_test(questions):
    results = {
        r.arm: r
        for r in compared(questions, mean=answered(questions, changes=False), shuffled=answered(questions, wrong=18))
    }
    assert results["shuffled"].p_holm == pytest.approx(6 * 2 * 0.5**18)
    assert not results["mean"].is_disconnected


def test_content_decides_the_verdict(questions):
    relies = judge(compared(questions, shuffled=answered(questions, wrong=18)), level=0.05)
    assert (relies.relies_on_world, relies.relies_on_image) == (True, False)
    assert relies.sentences[0].startswith("Relies on world: with world tokens of another image 55.0 % are right")
    image = judge(compared(questions, image_removed=answered(questions, wrong=18)), level=0.05)
    assert (image.relies_on_world, image.relies_on_image) == (False, True)


def test_missing_tokens_alone_are_no_reliance(questions):
    verdict = judge(compared(questions, zeroed=answered(questions, wrong=18)), level=0.05)
    assert not verdict.relies_on_world
    assert "does worse (zeroed)" in verdict.sentences[-1]


def test_an_arm_that_is_better_is_no_reliance(questions):
    arms = {arm: answered(questions, wrong=18) for arm in ARMS} | {"shuffled": answered(questions)}
    verdict = judge(compare(questions, arms, logit_tolerance=0.0), level=0.05)
    assert not verdict.relies_on_world
    assert "does better without" in verdict.sentences[0]


def test_the_same_text_with_other_logits_is_a_result_that_says_how_sure_it_is(questions):
    results = compared(questions)
    verdict = judge(results, level=0.05)
    assert not verdict.relies_on_world
    assert "no answer of 40 differs, so at most 7.2 % do" in verdict.sentences[0]  # 1 − 0.05^(1/40)
    assert not any(result.is_disconnected for result in results)


def test_the_same_logits_are_disconnected(questions):
    results = {r.arm: r for r in compared(questions, blocked=answered(questions, logits=0.0))}
    assert results["blocked"].is_disconnected
    assert not results["zeroed"].is_disconnected
    replayed = {r.arm: r for r in compared(questions, 1e-3, blocked=answered(questions, logits=5e-4))}
    assert replayed["blocked"].is_disconnected  # replaying the real arm makes as large a difference

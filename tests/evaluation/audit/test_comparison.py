"""Statistics of the arms, by images."""

from __future__ import annotations

import pytest

from theworld.evaluation.audit.arms import ARMS, REAL
from theworld.evaluation.audit.comparison import Answers, compare, holm

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


def test_the_same_logits_are_disconnected(questions):
    results = {r.arm: r for r in compared(questions, blocked=answered(questions, logits=0.0))}
    assert results["blocked"].is_disconnected
    assert not results["zeroed"].is_disconnected
    replayed = {r.arm: r for r in compared(questions, 1e-3, blocked=answered(questions, logits=5e-4))}
    assert replayed["blocked"].is_disconnected  # replaying the real arm makes as large a difference


def test_several_questions_of_an_image_count_as_one(ask):
    """Eight images of five equal questions: six lose all, two win all. McNemar would have it significant."""
    questions = [
        ask("big_predicate", "Is Region [0] bigger than Region [1]?", "Yes.", id=str(n), image=str(n // 5))
        for n in range(N)
    ]
    real = Answers(texts=("Yes.",) * 35 + ("No.",) * 5, changes=(False,) * N, logit_differences=(0.0,) * N)
    shuffled = Answers(
        texts=("No.",) * 35 + ("Yes.",) * 5, changes=(True,) * 30 + (False,) * 10, logit_differences=(1.0,) * N
    )
    result = compare(questions, {REAL: real, "shuffled": shuffled}, logit_tolerance=0.0)[1]
    assert (result.n, result.images, result.inputs_changed, result.images_changed) == (40, 8, 30, 6)
    assert result.p_value == result.p_holm == pytest.approx(2 * (1 + 8) / 2**8)
    assert result.mcnemar_p_value < 0.001
    assert result.difference == -30 / 40

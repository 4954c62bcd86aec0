"""What each quirk of the official script changes, and that nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from theworld.evaluation.compat import Compat
from theworld.evaluation.report import Prediction, Report

if TYPE_CHECKING:
    from conftest import Ask


@pytest.fixture(scope="module")
def predictions(ask: Ask) -> list[Prediction]:
    """A width at the very end of its range, one within it, two stances and a choice that says nothing after each."""
    wide = "How wide is Region [0]?"
    tall = "Is Region [0] taller than Region [1]?"
    rows = [
        (ask("width_data", wide, "0.36 m", id="a"), "45 cm"),
        (ask("width_data", wide, "2 m", id="b"), "1.6 m"),
        (ask("width_data", wide, "0 m", id="c"), "1 m"),
        (ask("tall_predicate", tall, "Yes.", id="d"), "Yes."),
        (ask("tall_predicate", tall, "Yes.", id="e"), "unclear"),
        (ask("direction", "Where is Region [1]?", "1 o'clock", id="f"), "3 o'clock"),
        (ask("tall_predicate", tall, "No.", id="g"), "Yes."),
        (ask("tall_predicate", tall, "No.", id="h"), "unclear"),
    ]
    return [Prediction(question, text) for question, text in rows]


def _scored(predictions: list[Prediction], compat: Compat) -> list[tuple[str, float | None]]:
    return [(score.outcome, score.error) for score in Report.from_predictions(predictions, compat=compat).scores]


def test_exact_by_default(predictions: list[Prediction]) -> None:
    assert _scored(predictions, "none") == [
        *(("correct", 0.25), ("correct", 0.2), ("incorrect", None)),
        *(("correct", None), ("abstained", None), ("incorrect", 2.0), ("incorrect", None), ("abstained", None)),
    ]


def test_printed_compares_in_floating_point(predictions: list[Prediction]) -> None:
    assert 1.25 * 0.36 < 0.45, "this end of the range is lost to rounding"
    found = _scored(predictions, "printed")
    assert [outcome for outcome, _ in found[:3]] == ["incorrect", "correct", "incorrect"]
    assert found[0][1] == pytest.approx(0.25)
    assert found[1][1] == pytest.approx(0.2)
    assert found[2:] == _scored(predictions, "none")[2:]


def test_score_json_has_its_own_errors(predictions: list[Prediction]) -> None:
    found, printed = _scored(predictions, "score_json"), _scored(predictions, "printed")
    assert [outcome for outcome, _ in found] == [outcome for outcome, _ in printed]
    errors = [error for _, error in found[:3]]
    assert errors == pytest.approx([100 * 0.09 / 0.3601, 100 * 0.4 / 2.0001, 100 * 1 / 1e-4])
    assert found[3:] == printed[3:]


def test_carried_verdicts_go_to_the_next_silent_answer(predictions: list[Prediction]) -> None:
    found, printed = _scored(predictions, "carried"), _scored(predictions, "printed")
    assert [outcome for outcome, _ in found[3:]] == ["correct", "correct", "incorrect", "incorrect", "abstained"]
    assert found[:4] + found[5:] == printed[:4] + printed[5:]
    report = Report.from_predictions(predictions, compat="carried")
    assert (report.row("qualitative").correct, report.summary()["compat"]) == (2, "carried")

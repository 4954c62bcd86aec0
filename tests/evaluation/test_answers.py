"""The scorer: outcomes spelled out, and broken rows refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from theworld.evaluation.answers import Outcome, offered_regions, question_kind, score_answer

if TYPE_CHECKING:
    from conftest import Ask


def test_yes_no(ask: Ask) -> None:
    question = ask("wide_predicate", "Is Region [0] wider than Region [1]?", "Wrong, Region [0] is not wider.")
    assert score_answer(question, "No.") == Outcome(True, True, "no", "no", None)
    assert score_answer(question, "Region [1] is narrower.") == Outcome(False, True, "no", "yes", None)
    assert score_answer(question, "") == Outcome(False, False, "no", None, None)


def test_choice(ask: Ask) -> None:
    question = ask("below_choice", "Which is lower, Region [5] or Region [2]?", "Lower down is Region [2].")
    assert score_answer(question, "Region [2]") == Outcome(True, True, "Region [2]", "Region [2]", None)
    assert score_answer(question, "Region [2] is higher.") == Outcome(False, True, "Region [2]", "Region [5]", None)
    assert score_answer(question, "Neither.") == Outcome(False, False, "Region [2]", None, None)
    assert offered_regions(question) == ["Region [5]", "Region [2]"]


@pytest.mark.parametrize(
    ("prediction", "outcome"),
    [
        ("1.5 m", Outcome(True, True, 2.0, 1.5, 0.25)),
        ("2500 mm", Outcome(True, True, 2.0, 2.5, 0.25)),
        ("149 cm", Outcome(False, True, 2.0, 1.49, 0.255)),
        ("251 cm", Outcome(False, True, 2.0, 2.51, 0.255)),
        ("close by", Outcome(False, False, 2.0, None, None)),
    ],
)
def test_distance(ask: Ask, prediction: str, outcome: Outcome) -> None:
    question = ask("distance_data", "How far is Region [0] from Region [1]?", "They are 2 metres apart.")
    assert score_answer(question, prediction) == outcome


def test_a_distance_of_zero_has_no_relative_error(ask: Ask) -> None:
    question = ask("vertical_distance_data", "How far apart are Region [0] and Region [1] vertically?", "0.0 meters")
    assert score_answer(question, "0 cm") == Outcome(True, True, 0.0, 0.0, None)
    assert score_answer(question, "1 cm") == Outcome(False, True, 0.0, 0.01, None)


@pytest.mark.parametrize(("hour", "correct"), [(10, False), (11, True), (12, True), (1, True), (2, False), (6, False)])
def test_direction(ask: Ask, hour: int, correct: bool) -> None:
    question = ask("direction", "You are at Region [0]: where is Region [1]?", "At 12 o'clock.")
    assert score_answer(question, f"At {hour} o'clock.") == Outcome(correct, True, 12.0, float(hour), None)


def test_the_kind_follows_from_the_category(ask: Ask) -> None:
    kinds = {
        category: question_kind(ask(category, "?", ""))
        for category in ("thin_predicate", "left_choice", "width_data", "horizontal_distance_data", "direction")
    }
    assert list(kinds.values()) == ["yes_no", "choice", "distance", "distance", "direction"]


def test_a_broken_row_is_refused_by_name(ask: Ask) -> None:
    good = ask("width_data", "How wide is Region [0]?", "It is 3 feet.", id="row-9")
    assert score_answer(good, "3 feet").correct
    with pytest.raises(ValueError, match=r"row 'row-9' \(width_data\): the ground truth 'Quite\.' does not parse"):
        score_answer(replace(good, answer="Quite."), "3 feet")
    with pytest.raises(ValueError, match=r"row 'row-9': found category 'colour_data'; expected <relation>_predicate"):
        score_answer(replace(good, qa_category="colour_data"), "3 feet")
    with pytest.raises(ValueError, match=r"row 'row-9': found type 'qualitative' with category 'width_data'"):
        score_answer(replace(good, qa_type="qualitative"), "3 feet")

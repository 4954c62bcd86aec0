"""The oracle constant against brute force, and chance."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.evaluation.answers import score_answer
from theworld.evaluation.baselines import BestConstant, best_constants, chance, template
from theworld.types import Question

if TYPE_CHECKING:
    from conftest import Ask


def test_template_numbers_regions_by_order_of_mention(ask: Ask) -> None:
    first = ask("tall_predicate", "Is Region [4] taller than Region [2]?", "Yes.")
    second = ask("tall_predicate", "Is Region [0]  taller than Region [1]?", "No.")
    third = ask("tall_predicate", "Is Region [1] taller than Region [1]?", "No.")
    assert template(first) == template(second) == "tall_predicate: is region [0] taller than region [1]?"
    assert template(third) != template(first)


def test_constants_of_every_kind(ask: Ask) -> None:
    predicate, choice = "Is Region [{}] above Region [{}]?", "Which is higher, Region [{}] or Region [{}]?"
    questions = [
        ask("above_predicate", predicate.format(0, 1), "No."),
        ask("above_predicate", predicate.format(3, 2), "No, it is not."),
        ask("above_predicate", predicate.format(1, 0), "Yes."),
        ask("above_choice", choice.format(3, 1), "Region [1]."),
        ask("above_choice", choice.format(0, 2), "Region [2]."),
        ask("above_choice", choice.format(5, 4), "Region [5]."),
        *(ask("direction", "Where is Region [1]?", f"At {hour} o'clock.") for hour in (12, 2, 6, 7)),
        *(ask("width_data", "How wide is Region [0]?", f"{width} m") for width in (1, 2, 3, 9)),
    ]
    # 12 and 2 are both within one hour of 1. 2 m and 3 m are both hit by 2.25 m to 2.5 m.
    assert best_constants(questions).by_template == {
        template(questions[0]): BestConstant("no", 3, 2),
        template(questions[3]): BestConstant("second-mentioned", 3, 2),
        template(questions[6]): BestConstant(1.0, 4, 2),
        template(questions[10]): BestConstant(2.375, 4, 2),
    }
    assert list(best_constants(questions).right) == [
        *(True, True, False),
        *(True, True, False),
        *(True, True, False, False),
        *(False, True, True, False),
    ]
    assert best_constants(questions).by_template[template(questions[0])].accuracy == 2 / 3
    assert best_constants([]).by_template == {}


def test_a_single_common_value_at_touching_ends_is_found(ask: Ask) -> None:
    # 1.25 · 3 ft = 0.75 · 5 ft = 3.75 ft: one point, which floating point would miss.
    questions = [ask("height_data", "How tall is Region [0]?", f"{feet} feet") for feet in (3, 5)]
    assert list(best_constants(questions).by_template.values()) == [BestConstant(3.75 * 0.3048, 2, 2)]


def _widths(millimetres: list[int]) -> list[Question]:
    return [
        Question(
            id=str(number),
            image_id="a",
            question="How wide is Region [0]?",
            answer=f"{width} mm",
            qa_type="quantitative",
            qa_category="width_data",
        )
        for number, width in enumerate(millimetres)
    ]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_best_length_matches_brute_force(widths: list[int]) -> None:
    candidates = [Fraction(width * quarter, 4) for width in widths for quarter in (3, 5)]
    most = max(sum(3 * width <= 4 * c <= 5 * width for width in widths) for c in candidates)
    (constant,) = best_constants(_widths(widths)).by_template.values()
    assert constant.correct == most == sum(best_constants(_widths(widths)).right)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 10**4), min_size=1, max_size=8))
def test_the_constant_scores_what_it_says(widths: list[int]) -> None:
    questions = _widths(widths)
    (constant,) = best_constants(questions).by_template.values()
    scores = [score_answer(question, f"{constant.answer:.12f} m").correct for question in questions]
    # The printed decimal can miss a value at the very end of an interval, never gain one.
    assert sum(scores) <= constant.correct
    assert constant.correct >= 1


def test_chance(ask: Ask) -> None:
    assert chance(ask("tall_predicate", "Is Region [0] taller than Region [1]?", "Yes.")) == 0.5
    assert chance(ask("tall_choice", "Which is taller, Region [0] or Region [1]?", "Region [0].")) == 0.5
    assert chance(ask("direction", "Where is Region [1]?", "At 2 o'clock.")) == 0.25
    assert chance(ask("distance_data", "How far are they?", "2 m")) is None


def test_an_unreadable_truth_is_refused(ask: Ask) -> None:
    with pytest.raises(ValueError, match="row 'row-1' .* does not parse"):
        best_constants([ask("direction", "Where is Region [1]?", "Over there.")])

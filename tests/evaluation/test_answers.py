"""The scorer: outcomes spelled out, and broken rows refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.evaluation.answers import Score, offered_regions, question_kind, score_answer
from theworld.evaluation.outcomes import OUTCOMES, Outcome

if TYPE_CHECKING:
    from conftest import Ask


def test_yes_no(ask: Ask) -> None:
    question = ask("wide_predicate", "Is Region [0] wider than Region [1]?", "Wrong, Region [0] is not wider.")
    assert score_answer(question, "No.") == Score("correct", "no", "no", None)
    assert score_answer(question, "Region [1] is narrower.") == Score("incorrect", "no", "yes", None)
    assert score_answer(question, "") == Score("empty", "no", None, None)


def test_choice(ask: Ask) -> None:
    question = ask("below_choice", "Which is lower, Region [5] or Region [2]?", "Lower down is Region [2].")
    assert score_answer(question, "Region [2]") == Score("correct", "Region [2]", "Region [2]", None)
    assert score_answer(question, "Region [2] is higher.") == Score("incorrect", "Region [2]", "Region [5]", None)
    assert score_answer(question, "Neither.") == Score("incorrect", "Region [2]", "both the same", None)
    assert offered_regions(question) == ["Region [5]", "Region [2]"]


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        ("1.5 m", Score("correct", 2.0, 1.5, 0.25)),
        ("2500 mm", Score("correct", 2.0, 2.5, 0.25)),
        ("149 cm", Score("incorrect", 2.0, 1.49, 0.255)),
        ("251 cm", Score("incorrect", 2.0, 2.51, 0.255)),
        ("close by", Score("unparsed", 2.0, None, None)),
    ],
)
def test_distance(ask: Ask, prediction: str, score: Score) -> None:
    question = ask("distance_data", "How far is Region [0] from Region [1]?", "They are 2 metres apart.")
    assert score_answer(question, prediction) == score


def test_a_distance_of_zero_has_no_relative_error(ask: Ask) -> None:
    question = ask("vertical_distance_data", "How far apart are Region [0] and Region [1] vertically?", "0.0 meters")
    assert score_answer(question, "0 cm") == Score("correct", 0.0, 0.0, None)
    assert score_answer(question, "1 cm") == Score("incorrect", 0.0, 0.01, None)


@pytest.mark.parametrize(
    ("hour", "outcome", "error"),
    [(10, "incorrect", 2), (11, "correct", 1), (12, "correct", 0), (1, "correct", 1), (6, "incorrect", 6)],
)
def test_direction(ask: Ask, hour: int, outcome: Outcome, error: int) -> None:
    question = ask("direction", "You are at Region [0]: where is Region [1]?", "At 12 o'clock.")
    assert score_answer(question, f"At {hour} o'clock.") == Score(outcome, 12.0, float(hour), float(error))


LENGTH = ("distance_data", "How far is Region [0] from Region [1]?", "2 m")
STANCE = ("tall_predicate", "Is Region [0] taller than Region [1]?", "Yes.")
CHOICE = ("tall_choice", "Which is taller, Region [0] or Region [1]?", "Region [0].")
HOUR = ("direction", "You are at Region [0]: where is Region [1]?", "At 3 o'clock.")
EMPTY = ("", " \n", "...", "model\n", "</s>")
REFUSED = ("I'm sorry, but I can't help with that.", "As an AI model I do not see.", "I cannot view images.")
ABSTAINED = ("I don't know.", "That cannot be determined from one picture.", "Unknown", "N/A", "Not enough detail.")


@pytest.mark.parametrize("row", [LENGTH, STANCE, CHOICE, HOUR], ids=lambda row: row[0])
def test_silence_refusal_and_abstention_are_told_apart(ask: Ask, row: tuple[str, str, str]) -> None:
    for outcome, texts in (("empty", EMPTY), ("refused", REFUSED), ("abstained", ABSTAINED)):
        for text in texts:
            assert score_answer(ask(*row), text).outcome == outcome, text


@pytest.mark.parametrize(
    ("row", "text", "outcome"),
    [
        (STANCE, "Maybe.", "abstained"),
        (LENGTH, "300 pixels", "pixels"),
        (LENGTH, "Between 150px and 200px.", "pixels"),
        (STANCE, "300 pixels", "unparsed"),
        (LENGTH, "30 % of the picture", "unparsed"),
        (LENGTH, "very close", "unparsed"),
        (HOUR, "To the right.", "unparsed"),
        (CHOICE, "The lamp.", "unparsed"),
        (STANCE, "A lamp and a cup.", "unparsed"),
        # An estimate is an answer, whatever is said before it.
        (LENGTH, "It is hard to say, but roughly 2 m.", "correct"),
        (LENGTH, "300 pixels, which is about 2 m.", "correct"),
        (LENGTH, "It is impossible to be exact; about 9 m.", "incorrect"),
    ],
)
def test_what_states_nothing_has_an_outcome_of_its_own(
    ask: Ask, row: tuple[str, str, str], text: str, outcome: Outcome
) -> None:
    score = score_answer(ask(*row), text)
    assert score.outcome == outcome
    assert (score.correct, score.parsed) == (outcome == "correct", outcome in OUTCOMES[:2])


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


NUMERALS = [*"0123456789.,/'+-e", " ", "..", "...", " m", " ft", '"', "in", "%", "\u00bd", "<", ">", "[", "]", "(", ")"]
NUMERALS += [
    "9" * 60,
    "9" * 400,
    "9" * 4400,
    "region ",
    " o'clock",
    "at ",
    "half ",
    "and ",
    "a ",
    "dozen ",
    "point five ",
]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(parts=st.lists(st.sampled_from(NUMERALS), max_size=12))
def test_no_answer_can_stop_the_scorer(ask: Ask, parts: list[str]) -> None:
    for row in (LENGTH, STANCE, CHOICE, HOUR):
        score = score_answer(ask(*row), "".join(parts))
        assert score.outcome in OUTCOMES
        assert score.error is None or score.error < float("inf")


@pytest.mark.parametrize(
    "text", ["at first glance, but ", "answer: ", "taller ", "left of ", "if it were ", "not 2 m "]
)
def test_a_model_that_repeats_itself_is_scored(ask: Ask, text: str) -> None:
    for row in (LENGTH, STANCE, CHOICE, HOUR):
        assert score_answer(ask(*row), text * 2_000).outcome in OUTCOMES

"""Cleaning and splitting of free text."""

from __future__ import annotations

import pytest

from theworld.evaluation.sentences import clean, readings, regions, statements, without_alternatives


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("**Region [3]** is `Big`", "<3> is big"),
        ("region 3, Region[4] and [5]", "<3>, <4> and <5>"),
        ("it\u2019s 10\u201315 \u201ccm\u201d", 'it\'s 10-15 "cm"'),
        ("1\u00bd m", "1 1/2 m"),
        ("model\nYes.", "yes."),
        ("No.\nuser\nIs it?\nmodel\nYes.", "yes."),
        ("model\nNo.\nuser\nIs it?", "no."),
        ("a fashion model stands there", "a fashion model stands there"),
        ("5 ft. 6 in. tall", "5 ft 6 in. tall"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_statements_leave_out_questions_and_conditionals() -> None:
    text = "is it tall? if it were, yes. it is 1.5 m! so it is\nnot wide"
    assert statements(text) == ["it is 1.5 m", "so it is", "not wide"]


def test_readings_believe_the_declared_answer_first_then_the_conclusion() -> None:
    first, second, conclusion, everything = readings("the answer is a. therefore b. the answer: c. d")
    assert (first, second[0], conclusion) == (["c", "d"], "a", ["therefore b"])
    assert everything == ["the answer is a", "therefore b", "the answer: c", "d"]
    assert readings("") == [[], []]


def test_regions_are_in_order_of_mention_and_an_echo_names_none() -> None:
    assert regions("<7> or <2>, and <7>") == [7, 2]
    assert regions(without_alternatives("<7> or <2>: <2>")) == [2]
    assert regions(without_alternatives("the taller of <7> and <2> is <2>")) == [2]

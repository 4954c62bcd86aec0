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
        ("approx. 2 m", "approx 2 m"),
        ("Region (2), region #3, Region two, Region4", "<2>, <3>, <2>, <4>"),
        ("<|im_start|>assistant\nNo.<|im_end|>", "no.\n"),
        ("ASSISTANT: No. Human: is it?", " no. human: is it?"),
        ("assistant: no.\nuser: is it?", " no."),
        ("The sizes:\nHuman: 1.8 m", "the sizes:\nhuman: 1.8 m"),
        ("It is a toy model\nof 2 m", "it is a toy model\nof 2 m"),
        ("Pleasemodel\nNo.", "no."),
        ("model\n", ""),
        ("$2.5 \\text{ m}$", " 2.5   m "),
        ("\\frac{1}{2} m", " 1/2 m"),
        ("<think>2 m?\nNo.</think>3 m", "\n3 m"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_statements_leave_out_questions_and_conditionals() -> None:
    text = "is it tall? if it were, yes. it is 1.5 m! so it is\nnot wide"
    assert statements(text) == ["it is 1.5 m", "so it is", "not wide"]


def test_statements_leave_out_what_is_conceded_or_imagined() -> None:
    assert statements("at first glance it is tall. however, it is short") == ["however, it is short"]
    assert statements("i thought it is tall, but it is short") == ["it is short"]
    assert statements("it would be tall if it stood, but it is short") == [", but it is short"]
    assert statements("tell whether it is tall; it is") == ["tell ; it is"]
    assert statements("it is tall, but not wide") == ["it is tall, but not wide"]


def test_a_model_that_declares_without_end_is_read_in_time() -> None:
    assert len(readings("answer: " * 20_000).declared) == 8


def test_consequents_of_conditions_state_quantities() -> None:
    text = "if you stand there, it is at 3. if not"
    assert statements(text) == []
    assert statements(text, consequents=True) == [" it is at 3"]


def test_readings_believe_the_declared_answer_first_then_the_conclusion() -> None:
    found = readings("the answer is a. therefore b. the answer: c. d, so e")
    assert found.declared == (["c", "d, so e"], ["a", "therefore b", "the answer: c", "d, so e"])
    assert found.concluded == [" b", " e"]
    assert found.everything == ["the answer is a", "therefore b", "the answer: c", "d, so e"]
    assert readings("") == ((), [], [], "")
    assert readings(clean("It is \\boxed{\\text{No}}.")).declared == (["no"],)


def test_regions_are_in_order_of_mention_and_an_echo_names_none() -> None:
    assert regions("<7> or <2>, and <7>") == [7, 2]
    assert regions(without_alternatives("<7> or <2>: <2>")) == [2]
    assert regions(without_alternatives("the taller of <7> and <2> is <2>")) == [2]

"""Letters of choices and true against false, in free text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theworld.evaluation.choices import LETTERS, parse_letter, score_letter, score_truth
from theworld.evaluation.truths import parse_truth

YES_NO = ("yes", "no")
DEPTH = ("A is closer", "B is closer")
COUNT = ("3", "2", "4", "1")
THINGS = ("the black dog", "the dog", "a cat", "none of these")
STATEMENT = "The cat is on top of the mat."


@pytest.mark.parametrize(
    ("text", "choices", "expected"),
    [
        *((text, YES_NO, "B") for text in ("B", "(B)", "b)", "[B]", "b", "B.", "**B**", "model\nB", r"\boxed{B}")),
        *((text, YES_NO, "B") for text in ("(B) no", "B. no", "B: because it is", "no", "No, the car is not.")),
        ("Answer: B", YES_NO, "B"),  # which a harness in use reads as A, the first letter of the word
        ("**Answer:** (C) 4", COUNT, "C"),
        ("The answer is B.", YES_NO, "B"),
        ("answer is b", YES_NO, "B"),
        ("The correct option is D", COUNT, "D"),
        ("The answer is A because of this.", YES_NO, "A"),
        ("(A) is wrong, so the answer is (B).", YES_NO, "B"),
        ("A. yes", YES_NO, "A"),
        ("I think B", YES_NO, "B"),
        ("It is not B but A.", YES_NO, "A"),
        ("A is closer", DEPTH, "A"),
        ("Point B is closer to the camera.", DEPTH, "B"),
        ("There are three organs.", COUNT, "A"),
        ("the dog", THINGS, "B"),
        ("It is the black dog.", THINGS, "A"),
        ("A cat is nearer.", THINGS, "C"),
        ("(D) none of these", THINGS, "D"),
        # Reasoning and questions choose nothing.
        ("<think>Is it A?</think>B", YES_NO, "B"),
        ("A) yes? No: B) no.", YES_NO, "B"),
        # A choice that is denied is not chosen.
        ("It is moving left, not right.", ("left", "right"), "A"),
        ("Not a cat but the dog.", THINGS, "B"),
        ("a cat rather than the dog", THINGS, "C"),
        ("A is not closer; B is closer.", DEPTH, "B"),
        ("Point A is farther, so B is closer.", DEPTH, "B"),
        # "No" answers only where it stands alone.
        ("There is no question about it: yes.", YES_NO, "A"),
        ("Yes. There is no other dog.", YES_NO, "A"),
        ("The dog is elsewhere, so the answer is no.", YES_NO, "B"),
        ("I would say no.", YES_NO, "B"),
    ],
)
def test_a_choice_is_read(text, choices, expected):
    assert parse_letter(text, choices) == expected


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        *((text, YES_NO) for text in ("", "E", "A or B", "A, B", "(A) and (B)", "The answer is A or B.", "yes, no")),
        ("(A) no", YES_NO),  # contradicts itself
        ("A dog is on the left of it.", YES_NO),  # an article
        ("Answer: A dog", YES_NO),
        ("I do not know", YES_NO),
        ("It is not B", YES_NO),
        ("The choice is a difficult one", YES_NO),
        ("Option B is better than option A", YES_NO),
        ("2 or 3", COUNT),
        # Undecidable: only what it is not, or a comparison whose end is not in the choice.
        ("It isn't the dog.", THINGS),
        ("I don't know, no idea", YES_NO),
        ("The point labelled A appears farther than the point labelled B", DEPTH),
    ],
)
def test_none_or_several_are_unparsed(text, choices):
    assert parse_letter(text, choices) is None


@given(st.integers(2, len(LETTERS)), st.data())
def test_every_letter_in_every_form(count, data):
    choices = [f"thing number {number}00" for number in range(count)]
    place = data.draw(st.integers(0, count - 1))
    letter = LETTERS[place]
    form = data.draw(st.sampled_from(["{}", "({})", "{}.", "{})", "Answer: {}", "The answer is ({}).", "Option {}"]))
    assert parse_letter(form.format(letter), choices) == letter
    assert parse_letter(f"({letter}) {choices[place]}", choices) == letter
    assert parse_letter(f"It shows {choices[place]}.", choices) == letter


@given(st.text(max_size=60))
def test_any_text_is_read_the_same_twice(text):
    assert parse_letter(text, THINGS) == parse_letter(text, THINGS)
    assert parse_truth(text, STATEMENT) in ("yes", "no", None)


def test_a_statement_with_a_denial_is_true_where_it_is_called_true():
    statement = "The cat is not on the mat."
    assert parse_truth("It is true that the cat is not on the mat.", statement) == "yes"
    assert parse_truth("The cat is not on the mat is false.", statement) == "no"
    assert parse_truth("The cat is not on the mat.", statement) == "yes"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, "yes") for text in ("Yes.", "True", "1", "right", "Yes, it is.", "**Yes**", "The statement is true.")),
        *((text, "no") for text in ("No.", "False.", "0", "No, it's not.", "model\nNo.", "That is not true.")),
        *((text, "no") for text in ("It isn't correct", "The statement is incorrect.", "No, that is not true.")),
        *((text, "no") for text in ("The answer is no.", "I would say no", "The answer should be 'No'.", "answer: no")),
        *(
            (text, "yes")
            for text in ("The answer is yes.", "I'd say yes.", "My verdict: yes", "<think>false</think>Yes")
        ),
        *(
            (text, "no")
            for text in ("True or false? False.", "Is the caption true? No", "Seen from here, no, it is below.")
        ),
        *(
            (text, "no")
            for text in ("I don't think it's true.", "It can't be true.", "It is far from true.", "hardly true")
        ),
        *(
            (text, "yes")
            for text in ("I don't think it's false.", "There is nothing false about it.", "Not incorrect.")
        ),
        *((text, "no") for text in ("I don't think so.", "That the cat is on top of the mat is a false statement.")),
        ("If the cat is on top of the mat it is true, but it is below.", None),
        ("No. It would be true if the cat were on top.", "no"),
        ("The cat is on top of the mat only in the mirror, so no.", "no"),
        ("It is true that the cat is on top of the mat.", "yes"),
        ("It is false that the cat is on top of the mat.", "no"),
        ("not false", "yes"),
        ("The cat is on top of the mat.", "yes"),
        ("The cat is not on top of the mat.", "no"),
        ("The cat isn't on top of the mat", "no"),
        *(
            (text, None)
            for text in (
                "",
                "Maybe",
                "Yes, that is false.",
                "yes\nno",
                "yes and no",
                "True or false",
                "There is no cat.",
            )
        ),
        ("The cat is right of the mat", None),  # a side, not a verdict
        ("The dog is on top of the mat", None),
    ],
)
def test_true_and_false_are_read(text, expected):
    assert parse_truth(text, STATEMENT) == expected


def test_outcomes():
    right = score_letter("Answer: B", choices=YES_NO, truth="(B)")
    assert (right.correct, right.parsed, right.truth, right.prediction) == (True, True, "B", "B")
    wrong = score_letter("A", choices=YES_NO, truth="(B)")
    assert (wrong.correct, wrong.parsed) == (False, True)
    unparsed = score_letter("A or B", choices=YES_NO, truth="(B)")
    assert (unparsed.correct, unparsed.parsed, unparsed.prediction) == (False, False, None)
    assert score_truth("False", statement=STATEMENT, truth="No.").correct


def test_a_truth_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"found the truth '\(C\)', expected a letter of 2 choices"):
        score_letter("A", choices=YES_NO, truth="(C)")
    with pytest.raises(ValueError, match="found the truth 'perhaps', expected Yes or No"):
        score_truth("Yes", statement=STATEMENT, truth="perhaps")

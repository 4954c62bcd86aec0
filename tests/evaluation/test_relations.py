"""Stances and choices in free text; every wording here is our own."""

from __future__ import annotations

import pytest

from theworld.evaluation.axes import is_relation
from theworld.evaluation.relations import SAME, parse_choice, parse_stance
from theworld.evaluation.sentences import clean, readings, regions


def stance_of(text: str, asked: tuple[str, str]) -> str | None:
    relation = asked[0].removesuffix("_predicate")
    return parse_stance(readings(clean(text)), relation=relation, asked=regions(clean(asked[1])))


def choice_of(text: str, relation: str, question: str) -> int | str | None:
    return parse_choice(readings(clean(text)), relation=relation, offered=regions(clean(question)))


TALL = ("tall_predicate", "Is Region [3] taller than Region [7]?")
RIGHT = ("right_predicate", "Is Region [0] to the right of Region [1]?")
BEHIND = ("behind_predicate", "Is Region [0] behind Region [1]?")
ABOVE = ("above_predicate", "Is Region [0] above Region [1]?")
SMALL = ("small_predicate", "Is Region [2] smaller than Region [5]?")


@pytest.mark.parametrize(
    ("asked", "text", "stance"),
    [
        # A verdict of its own.
        (TALL, "Yes", "yes"),
        (TALL, "no.", "no"),
        (TALL, "FALSE", "no"),
        (TALL, "That is not true.", "no"),
        (TALL, "That's right.", "yes"),
        (TALL, "This statement is false.", "no"),
        (TALL, "Definitely not.", "no"),
        (TALL, "I would say yes.", "yes"),
        (TALL, "It is not.", "no"),
        (TALL, "Looking at the picture, **yes**, it seems to tower over it.", "yes"),
        (TALL, "After some thought, the answer is no, Region [3] is not.", "no"),
        (TALL, "* Yes\n* No\n\n**Answer:** No", "no"),
        (TALL, "Nope", "no"),
        (TALL, "Affirmative", "yes"),
        (TALL, "Y", "yes"),
        (TALL, "I don't think so.", "no"),
        (TALL, "It seems so.", "yes"),
        (TALL, "Probably not.", "no"),
        (TALL, "I'd have to say no.", "no"),
        (TALL, "My answer would be yes.", "yes"),
        (TALL, "Yes, and I cannot see why one would doubt it.", "yes"),
        (TALL, "<think>No? Yes.</think>No.", "no"),
        (TALL, "assistant: no\nuser: yes", "no"),
        # "May" and "might" with the opposite are a way to say no.
        (TALL, "Actually, Region [3] may be shorter than Region [7].", "no"),
        (SMALL, "In fact Region [2] might be larger than Region [5].", "no"),
        # "Sure" and "indeed" may only open what follows.
        (TALL, "Sure! Region [7] is taller.", "no"),
        (TALL, "Indeed, Region [3] is not taller.", "no"),
        (TALL, "Of course it is. It is taller.", "yes"),
        (TALL, "Of course, it is not.", "no"),
        (TALL, "Certainly!", "yes"),
        (TALL, "No doubt Region [3] is taller.", "yes"),
        # The verdict outranks the explanation.
        (SMALL, "**Yes**\n\nTherefore, Region [2] is larger.", "yes"),
        # A statement of the relation, of its opposite, and of the other region.
        (TALL, "Region [3] is the taller one.", "yes"),
        (TALL, "Region 7 is taller.", "no"),
        (TALL, "Region [7] is shorter than Region [3].", "yes"),
        (TALL, "Compared to Region [7], Region [3] is shorter.", "no"),
        (TALL, "Actually, the height of Region [3] falls short of that of Region [7].", "no"),
        (TALL, "Region [3]'s height exceeds Region [7]'s.", "yes"),
        (TALL, "Region [3] isn't taller than Region [7].", "no"),
        (TALL, "Region [3] is not as tall as Region [7].", "no"),
        (TALL, "Region [3] and Region [7] have the same height.", "no"),
        (TALL, "It is taller.", "yes"),
        (TALL, "They are equally tall.", "no"),
        (TALL, "Neither is taller.", "no"),
        (TALL, "Region [3] is as tall as Region [7].", "no"),
        (TALL, "Region [3] is less tall than Region [7].", "no"),
        (TALL, "Region [3] is twice as tall as Region [7].", "yes"),
        (TALL, "Region [3] is half as tall as Region [7].", "no"),
        (TALL, "Region [3] is not only taller but wider.", "yes"),
        (TALL, "It is not the case that Region [3] is taller.", "no"),
        (BEHIND, "Region [0] is hidden by Region [1].", "yes"),
        (BEHIND, "Region [0] stands in the background.", "yes"),
        (ABOVE, "Region [0] is at the top, Region [1] at the bottom.", "yes"),
        (RIGHT, "To the left of Region [1] is Region [0].", "no"),
        (RIGHT, "Region [1] is to the left of Region [0].", "yes"),
        (RIGHT, "Region [1] is on the right, while Region [0] is on the left.", "no"),
        (BEHIND, "Region [0] is farther from the camera.", "yes"),
        (BEHIND, "Region [1] is closer to the viewer.", "yes"),
        (BEHIND, "Region [0] is nearer.", "no"),
        (ABOVE, "You will find Region [0] above Region [1].", "yes"),
        (ABOVE, "Region [0] does not appear above Region [1].", "no"),
        (SMALL, "Region [2] takes less space than Region [5].", "yes"),
        (SMALL, "Region [2] has a greater size.", "no"),
        (SMALL, "Region [2] has a lesser width, but it has a greater size.", "no"),
        (TALL, "Region [3] has a greater width and Region [7] a greater height.", "no"),
    ],
)
def test_stance(asked: tuple[str, str], text: str, stance: str) -> None:
    assert stance_of(text, asked) == stance


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Is Region [3] taller than Region [7]?",
        "I cannot tell which is taller.",
        "No, I cannot tell.",
        "Yes and no.",
        "Maybe.",
        "Region [3] has a greater width than Region [7].",
        "It is impossible to determine whether Region [3] is taller.",
        "If Region [3] were taller, yes.",
        "* Yes\n* No",
        "Region [3] is wider than Region [7].",
        "Region [3]",
        "Please find a Region [3] taller than Region [7].",
    ],
)
def test_an_answer_that_takes_no_side_is_unparsed(text: str) -> None:
    assert stance_of(text, TALL) is None


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("Region [4].", 4),
        ("[2]", 2),
        ("2", 2),
        ("Region 2 stands taller.", 2),
        ("Region [2] is shorter.", 4),
        ("The taller of Region [4] and Region [2] is Region [2].", 2),
        ("Standing taller is Region [4].", 4),
        ("Region [4] is not taller than Region [2].", 2),
        ("Compared with Region [4], Region [2] has more height.", 2),
        ("Region [4]: a lamp\nRegion [2]: a tree\n\n**Answer:** Region [2]\n\nRegion [4] is lower.", 2),
        ("Region [4] or Region [2]? Region [2].", 2),
        ("Region [2], not Region [4].", 2),
        ("The latter.", 2),
        ("* Region [4]\n* Region [2]\n\nRegion [4] has the greater height.", 4),
        ("Region [9]", None),
        ("Region [4] or Region [2]", None),
        ("* Region [4]\n* Region [2]", None),
        ("Both are equally tall.", SAME),
        ("Neither.", SAME),
        ("They have the same height.", SAME),
        ("A) Region [4]\nB) Region [2]\n\nAnswer: B", 2),
        ("The first one.", 4),
        ("Region [4] is not as tall as Region [2].", 2),
        ("Region [2] (a lamp) is taller than Region [4] (a cup).", 2),
        ("Of the two, [4].", 4),
        ("The lamp.", None),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_choice(text: str, region: int | str | None) -> None:
    asked = "Which of these two, Region [4] or Region [2], is the taller?"
    assert choice_of(text, "tall", asked) == region


def test_the_opposite_relation_names_the_other_region() -> None:
    asked = "Which is more to the left, Region [0] or Region [1]?"
    assert choice_of("Region [1] is more to the right.", "left", asked) == 0
    assert choice_of("Region [1] is more to the left.", "left", asked) == 1


def test_the_twelve_relations() -> None:
    twelve = ["above", "below", "left", "right", "behind", "front", "big", "small", "tall", "short", "wide", "thin"]
    assert [name for name in (*twelve, "near", "") if is_relation(name)] == twelve

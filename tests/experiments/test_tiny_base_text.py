"""The tiny base's text-only corpus: every answer follows from the facts in its own text."""

import re

import numpy as np
import pytest
from mentions import MAX_MENTIONS, Facts, mention_arrays
from text_rows import FORMS, text_row

from theworld.data.synthetic.base_questions import COLUMNS3, COLUMNS5, ROWS3, ROWS5

WORDS = {
    "left": ("x", -1),
    "right": ("x", 1),
    "above": ("y", -1),
    "higher": ("y", -1),
    "below": ("y", 1),
    "lower": ("y", 1),
}


def stated_places(text: str) -> dict[int, tuple[float, float]]:
    """Region number → (x, y) as the facts of the first question give them, in some unit that keeps their order."""
    places = {}
    for number, x, y in re.findall(r"Region \[(\d)] is at \((\d+), (\d+)\)\.", text):
        places[int(number)] = float(x), float(y)
    for number, row, column in re.findall(r"Region \[(\d)] is at the ([a-z ]+), ([a-z ]+)\.", text):
        places[int(number)] = float(COLUMNS5.index(column)), float(ROWS5.index(row))
    for number, words in re.findall(
        r"Region \[(\d)] is (?:an? \w+ \w+ )?at the ((?:top|bottom|left|right|center| )+)\.", text
    ):
        row = next((i for i, word in enumerate(ROWS3) if word in words), 1)
        column = next((i for i, word in enumerate(COLUMNS3) if word in words), 1)
        places[int(number)] = float(column), float(row)
    return places


def right_answer(question: str, places: dict[int, tuple[float, float]]) -> str:
    """What a reader of the facts would answer."""
    first, second = (int(n) for n in re.findall(r"Region \[(\d)]", question.rpartition(". ")[2]))
    word = next(word for word in WORDS if word in question.rpartition(". ")[2])
    axis, sign = WORDS[word]
    along = "xy".index(axis)
    true_first = sign * (places[first][along] - places[second][along]) > 0
    if "hich is" in question:
        comparative = f"more to the {word}" if axis == "x" else {"above": "higher", "below": "lower"}.get(word, word)
        return f"Region [{first if true_first else second}] is {comparative}."
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}[word]
    phrase = {"x": "to the {} of", "y": "{}"}[axis].format(word if true_first else opposite)
    return f"{'Yes' if true_first else 'No'}, Region [{first}] is {phrase} Region [{second}]."


def test_every_comparison_of_places_follows_from_the_stated_facts() -> None:
    checked = dict.fromkeys(FORMS, 0)
    for seed in range(300):
        row = text_row(np.random.default_rng(seed), turns=6)
        if row.form == "kind":
            continue
        places = stated_places(row.turns[0][0])
        assert len(places) == row.num_stated == len(row.regions)
        for question, answer in row.turns:
            assert answer == right_answer(question, places), (row.turns[0][0], question)
            checked[row.form] += 1
    assert all(count > 20 for form, count in checked.items() if form != "kind")


def test_sizes_are_compared_and_measured_in_words_only() -> None:
    rows = [row for seed in range(200) if (row := text_row(np.random.default_rng(seed), turns=6)).form == "kind"]
    asked = " ".join(question for row in rows for question, _ in row.turns)
    assert all(
        word in asked for word in ("taller", "shorter", "wider", "thinner", "bigger", "smaller", "How tall", "width")
    )
    answers = [answer for row in rows for _, answer in row.turns]
    assert {"Yes", "No,", "Region"} >= {answer.split()[0].replace("Yes,", "Yes") for answer in answers}


def test_mentions_carry_the_facts_of_the_region_they_name() -> None:
    ids = np.array([7, 90, 8, 91, 5, 90, 6])
    at, known = mention_arrays(ids, {90: 0, 91: 3}, {0: Facts(kind=2, x=40, y=7), 3: Facts(row=4)}, skip=1)
    assert at.tolist() == [3, 5] + [-1] * (MAX_MENTIONS - 2)
    assert known[0].tolist() == [-1, -1, 4, -1, -1, -1, -1, -1]
    assert known[1].tolist() == [2, -1, -1, -1, -1, -1, 40, 7]
    assert (known[2:] == -1).all()


def test_a_mention_of_an_unknown_region_is_an_error() -> None:
    with pytest.raises(KeyError):
        mention_arrays(np.array([90]), {90: 5}, {0: Facts()}, skip=0)

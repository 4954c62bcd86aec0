"""Base questions: right answers, and nothing that the world tokens are tested on."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from theworld.data.synthetic.base_questions import box_centre, name, place_words, pretrain_rows
from theworld.data.synthetic.kinds import COLOURS, KINDS

FORBIDDEN = re.compile(
    r"\b(above|below|behind|front|taller|shorter|bigger|smaller|wider|thinner|far apart|distance|between|o'clock"
    r"|inch|inches|centimeters|feet|meters|closer|further|higher|lower than|than|depth)\b"
)


def turns_of(rows):
    """(question, answer, objects mentioned as boxes) of all turns."""
    for row in rows:
        boxes = iter(row["bbox"])
        for human, gpt in zip(row["conversations"][::2], row["conversations"][1::2], strict=True):
            question = human["value"].removeprefix("<image>\n")
            yield row, question, gpt["value"], [tuple(next(boxes)) for _ in range(question.count("<mask>"))]
        assert next(boxes, None) is None


def check(question: str, answer: str, things, scene, row) -> str:
    """Checks one turn against the scene and returns the kind of question it was."""
    size = scene.image_size
    named = [f"{'an' if o.colour == 'orange' else 'a'} {o.colour} {o.kind}" for o in things]
    coarse, fine = ([place_words(*box_centre(o, size), fine=fine) for o in things] for fine in (False, True))
    if len(things) > 1 and question.startswith("Which of"):
        (region,) = re.fullmatch(r"Region \[(\d+)]\.", answer).groups()
        colour, kind = re.search(r"is the (\w+) (\w+)\?", question).groups()
        fits = [i for i, o in enumerate(things) if (o.colour, o.kind) == (colour, kind)]
        assert fits == [int(region)]
        return "which"
    if question.startswith(("Describe", "What are")):
        expected = [
            f"Region [{i}] is {n} at the {place}." for i, (n, place) in enumerate(zip(named, coarse, strict=True))
        ]
        assert answer == " ".join(expected)
        return "caption"
    if not things:
        count = len({tuple(box) for box in row["bbox"]})
        assert answer == f"{count} region{'' if count == 1 else 's'}."
        return "count"
    (o,) = things
    if question.startswith("Where"):
        exactly = "exactly" in question
        assert answer == f"Region [0] is at the {fine[0] if exactly else coarse[0]}."
        return "fine" if exactly else "coarse"
    if question.startswith("Give the coordinates"):
        x1, y1, x2, y2 = o.box
        percent = [int(50 * (low + high) / size) for low, high in ((x1, x2), (y1, y2))]
        assert answer == f"Region [0] is at ({percent[0]}, {percent[1]})."
        return "coordinates"
    if match := re.fullmatch(r"Is <mask> <depth> (?:an? )?(\w+)\?", question):
        truth = o.kind if match[1] in KINDS else o.colour
        assert answer == ("Yes." if match[1] == truth else f"No, it is {'a ' if truth in KINDS else ''}{truth}.")
        return "yes" if answer == "Yes." else "no"
    if "color" in question:
        assert answer.lower() == f"{o.colour}."
        return "colour"
    assert answer.lower() in (f"{named[0]}.", f"{o.kind}.")
    return "kind"


def test_all_answers_follow_from_the_scene_and_all_questions_are_asked(drawn):
    seen = Counter()
    for number, (_, scene) in enumerate(drawn):
        by_box = {o.box: o for o in scene.objects}
        rows = pretrain_rows(scene, np.random.default_rng(number), num_rows=8)
        assert [row["id"] for row in rows] == [f"{scene.id}-{i}" for i in range(8)]
        for row, question, answer, boxes in turns_of(rows):
            seen[check(question, answer, [by_box[box] for box in boxes], scene, row)] += 1
    assert set(seen) == {"which", "caption", "count", "fine", "coarse", "coordinates", "yes", "no", "colour", "kind"}
    assert seen["yes"] / (seen["yes"] + seen["no"]) == pytest.approx(0.5, abs=0.08)


def test_no_relation_no_metric_no_depth(drawn):
    assert FORBIDDEN.search("is it behind the mug")
    for number, (_, scene) in enumerate(drawn):
        for _, question, answer, _ in turns_of(pretrain_rows(scene, np.random.default_rng(number), num_rows=8)):
            text = f"{question} {answer}".replace("<depth>", "").lower()
            assert not FORBIDDEN.search(text), text
            assert not re.search(r"region \[\d+] .*region \[\d+]", answer.lower().split(".")[0])


@pytest.mark.parametrize(
    ("box", "coarse", "fine"),
    [
        ((0, 0, 10, 10), "top left", "very top, far left"),
        ((43, 43, 53, 53), "center", "middle, center"),
        ((80, 43, 96, 53), "right", "middle, far right"),
        ((43, 86, 53, 96), "bottom", "very bottom, center"),
        ((20, 60, 30, 70), "bottom left", "lower part, left"),
    ],
)
def test_places(drawn, box, coarse, fine):
    thing = replace(drawn[0][1].objects[0], box=box)
    centre = box_centre(thing, 96)
    assert place_words(*centre, fine=False) == coarse
    assert place_words(*centre, fine=True) == fine


def test_names_have_their_article():
    assert name("orange", "ball") == "an orange ball"
    assert name("red", "mug") == "a red mug"


def test_nouns_and_colours_are_single_words():
    assert all(word.isalpha() for word in (*KINDS, *COLOURS))


def test_a_scene_without_objects_is_refused(drawn):
    with pytest.raises(ValueError, match="shows no object; expected at least one"):
        pretrain_rows(replace(drawn[0][1], objects=()), np.random.default_rng(0))

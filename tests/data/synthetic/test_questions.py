"""Questions and answers, recomputed from the files on disk by other formulas."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from theworld.data.synthetic.camera import Camera
from theworld.data.synthetic.questions import (
    CATEGORIES,
    QUANTITATIVE,
    QuestionDeck,
    ask,
    write_length,
)
from theworld.data.synthetic.relations import MARGINS, RELATIONS, clock_degrees, clock_hour
from theworld.data.synthetic.truth import ObjectTruth, SceneTruth

METRES = {"inches": 0.0254, "centimeters": 0.01, "feet": 0.3048, "meters": 1.0}
HALF_DIGIT = {"inches": 0.0013, "centimeters": 0.0005, "feet": 0.0016, "meters": 0.005}


def thing(x=0.0, y=3.0, z=0.5, size=(0.3, 0.3, 0.3), colour="red", kind="box") -> ObjectTruth:
    return ObjectTruth(
        kind=kind,
        colour=colour,
        centre=(x, y, z),
        camera=(x, 1.0 - z, y),
        size=size,
        yaw=0.0,
        box=(10, 10, 20, 20),
        rle={"size": [64, 64], "counts": "0"},
        pixels=100,
    )


def scene(*objects: ObjectTruth) -> SceneTruth:
    camera = Camera(position=(0.0, 0.0, 1.0), yaw=0.0, pitch=0.0, field_of_view=60.0)
    return SceneTruth(id="s", setting="room", image_size=64, camera=camera, objects=objects)


def more_of(word: str, a: ObjectTruth, b: ObjectTruth) -> bool:
    """Whether `a` is `word` compared to `b`, written out."""
    volume = [o.size[0] * o.size[1] * o.size[2] for o in (a, b)]
    return {
        "left": a.camera[0] < b.camera[0],
        "right": a.camera[0] > b.camera[0],
        "above": a.centre[2] > b.centre[2],
        "below": a.centre[2] < b.centre[2],
        "behind": a.camera[2] > b.camera[2],
        "front": a.camera[2] < b.camera[2],
        "big": volume[0] > volume[1],
        "small": volume[0] < volume[1],
        "tall": a.size[1] > b.size[1],
        "short": a.size[1] < b.size[1],
        "wide": a.size[0] > b.size[0],
        "thin": a.size[0] < b.size[0],
    }[word]


def check_answer(category: str, answer: str, regions: list[ObjectTruth], camera: Camera) -> None:
    word = category.split("_")[0]
    if category.endswith("_predicate"):
        assert answer.startswith("Yes, " if more_of(word, *regions) else "No, ")
    elif category.endswith("_choice"):
        assert answer.startswith(f"Region [{0 if more_of(word, *regions) else 1}] is ")
    elif category == "direction":
        seen, hour, origin = map(
            int, re.fullmatch(r"Region \[(\d)] is at (\d+) o'clock from Region \[(\d)].", answer).groups()
        )
        delta = np.subtract(regions[seen].centre, regions[origin].centre)[:2]
        turned = np.degrees(np.arctan2(delta[1], delta[0])) - camera.yaw  # counterclockwise from the camera's right
        error = abs((hour * 30 - (90 - turned) + 180) % 360 - 180)
        assert error <= 15 - MARGINS["clock_degrees"] + 1e-6
    else:
        value, unit = re.search(r"([\d.]+) (inches|centimeters|feet|meters)", answer).groups()
        delta = np.subtract(regions[0].centre, regions[-1].centre)
        true = {
            "width_data": regions[0].size[0],
            "height_data": regions[0].size[1],
            "distance_data": np.sqrt((delta**2).sum()),
            "vertical_distance_data": abs(delta[2]),
            "horizontal_distance_data": np.hypot(delta[0], delta[1]),
        }[category]
        assert float(value) * METRES[unit] == pytest.approx(true, abs=HALF_DIGIT[unit])


def test_every_category_is_asked_and_every_test_answer_follows_from_the_scenes_on_disk(splits):
    rows, scenes = splits["test"]
    seen = Counter()
    for row in rows:
        shown = scenes[row["filename"]]
        by_box = {thing.box: thing for thing in shown.objects}
        regions = [by_box[tuple(box)] for box in row["bbox"]]
        check_answer(row["qa_info"]["category"], row["conversations"][1]["value"], regions, shown.camera)
        seen[row["qa_info"]["category"]] += 1
    assert set(seen) == set(CATEGORIES)
    assert len(CATEGORIES) == 24
    assert max(seen.values()) - min(seen.values()) <= 2
    wrong = rows[0]["conversations"][1]["value"]
    assert wrong  # the checker itself can fail:
    with pytest.raises(AssertionError):
        check_answer("left_predicate", "Yes, .", [thing(x=1), thing(x=-1)], scene().camera)


def test_test_answers_are_balanced_exactly(splits):
    rows, _ = splits["test"]
    lead = Counter()
    for row in rows:
        category, answer = row["qa_info"]["category"], row["conversations"][1]["value"]
        if category not in QUANTITATIVE:
            lead[category] += 1 if answer.startswith(("Yes", "Region [0]")) else -1
    assert len(lead) == 18
    assert max(abs(value) for value in lead.values()) <= 1


def test_training_answers_are_fair_coins(drawn):
    """Independent of each other, so that no answer can be guessed from those before it in the row."""
    deck, rng = QuestionDeck({"left_predicate": 1, "tall_choice": 1}), np.random.default_rng(0)
    answers: dict[str, list[bool]] = {"left_predicate": [], "tall_choice": []}
    for _, shown in drawn * 12:
        for _ in range(2):
            question = deck.ask(shown, rng)
            answers[question.category].append(question.answer.startswith(("Yes", "Region [0]")))
    for values in answers.values():
        assert len(values) > 300
        assert np.mean(values) == pytest.approx(0.5, abs=0.09)
        assert np.mean(np.equal(values[1:], values[:-1])) == pytest.approx(0.5, abs=0.09)


def test_a_predicate_is_spelled_out():
    left, right = thing(x=-1.0), thing(x=1.0, colour="blue")
    asked = ask(scene(left, right), "left_predicate", np.random.default_rng(0), true_first=False)
    assert asked.regions == (1, 0)
    assert asked.answer == "No, Region [0] is to the right of Region [1]."
    assert asked.question.count("<mask> <depth>") == 2
    assert "to the left of" in asked.question
    assert asked.qa_type == "qualitative"
    yes = ask(scene(left, right), "left_predicate", np.random.default_rng(0), true_first=True)
    assert (yes.regions, yes.answer) == ((0, 1), "Yes, Region [0] is to the left of Region [1].")


@pytest.mark.parametrize("word", RELATIONS)
def test_pairs_within_the_margin_are_not_asked(word: str):
    same = scene(thing(), thing(x=0.01, y=3.01, z=0.51, size=(0.31, 0.31, 0.31)))
    apart = scene(thing(), thing(x=1.0, y=4.0, z=1.5, size=(0.6, 0.6, 0.6)))
    rng = np.random.default_rng(0)
    assert ask(same, f"{word}_predicate", rng, true_first=True) is None
    assert ask(apart, f"{word}_predicate", rng, true_first=True) is not None


@pytest.mark.parametrize(
    ("x", "y", "hour"), [(0, 1, 12), (1, 1.7, 1), (1, 0, 3), (0, -1, 6), (-1, 0, 9), (-1, 1.7, 11)]
)
def test_clock_directions(x: float, y: float, hour: int):
    here, there = thing(x=0, y=3), thing(x=x, y=3 + y)
    assert clock_hour(clock_degrees(here, there, yaw=0.0)) == hour


def test_clock_directions_turn_with_the_camera():
    """A camera turned left by 90° looks along -x: what lies at -x is straight ahead."""
    assert clock_hour(clock_degrees(thing(x=0), thing(x=-1), yaw=90.0)) == 12


def test_lengths_come_in_all_units_and_short_ones_in_small_units():
    rng = np.random.default_rng(0)
    short = Counter(write_length(0.3, rng).split()[1] for _ in range(400))
    long = Counter(write_length(2.5, rng).split()[1] for _ in range(400))
    assert short["inches"] + short["centimeters"] > 0.7 * 400
    assert long["meters"] + long["feet"] > 0.8 * 400
    assert set(short) | set(long) == set(METRES)
    assert {write_length(0.352, rng) for _ in range(60)} == {"35.2 centimeters", "13.9 inches", "1.15 feet"}


def test_a_conversation_repeats_no_fact():
    shown = scene(thing(x=-1.0), thing(x=1.0), thing(x=0.0))
    deck, rng, taken = QuestionDeck({"left_predicate": 1, "right_choice": 1}), np.random.default_rng(0), set()
    while (question := deck.ask(shown, rng, taken)) is not None:
        assert question.fact not in taken
        taken.add(question.fact)
    assert len(taken) == 3


def test_the_deck_keeps_to_its_weights():
    shown = scene(thing(x=-1.0), thing(x=1.0, y=5.0))
    deck, rng = QuestionDeck({"left_choice": 3, "behind_predicate": 1, "direction": 0}), np.random.default_rng(0)
    asked = Counter(deck.ask(shown, rng).category for _ in range(40))
    assert asked == {"left_choice": 30, "behind_predicate": 10}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"lefty": 1.0}, r"unknown question categories \['lefty'\]; expected some of"),
        ({"direction": -1.0, "left_choice": 2.0}, "expected none negative and one positive"),
        ({"direction": 0.0}, "expected none negative and one positive"),
        ({}, "expected none negative and one positive"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        QuestionDeck(weights)

"""Answers a second of the scorer, in seconds of one core: parsing, verdict, and what stands around them.

    python experiments/speed/scorer.py

Every answer is another text (numbers, wordings and objects are drawn); the scorer keeps nothing of answers. It keeps
what a question asks for and ground truths (16,384 each), as the same benchmark is answered by many models and arms:
`new truths` empties that memory first, and every ground truth is another text as well; `known truths` is any later
model. Styles: `short` as of a model trained on the data set's templates, `free` as of a chat model with its markdown,
descriptions and notes, `odd` what states nothing. `mixed` is all three in equal parts.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from theworld.evaluation.answers import _read_truth, score_answer
from theworld.evaluation.asked import _asked
from theworld.evaluation.predictions import Prediction, read_predictions
from theworld.evaluation.report import Report
from theworld.types import Question

STANCES = {
    "tall": ("taller", "shorter"),
    "wide": ("wider", "thinner"),
    "big": ("bigger", "smaller"),
    "left": ("to the left of", "to the right of"),
    "above": ("above", "below"),
    "behind": ("behind", "in front of"),
}
UNITS = ("meters", "feet", "inches", "centimeters", "m", "cm")
MEASURES = {
    "width": ("How wide is Region [0]?", "width"),
    "height": ("What is the height of Region [0]?", "height"),
    "distance": ("How far is Region [0] from Region [1]?", "distance"),
    "horizontal_distance": (
        "What is the horizontal distance between Region [0] and Region [1]?",
        "horizontal distance",
    ),
    "vertical_distance": ("How far apart are Region [0] and Region [1] vertically?", "vertical distance"),
}
OBJECTS = ("a lamp", "the grey chair", "a stack of books", "a bicycle", "the door of the shed", "a mug", "a parked van")
ODD = (
    "I cannot determine this from picture {}.",
    "It spans about {} pixels.",
    "I'm sorry, I can't help with that ({}).",
)
ODD += ("{}s's's's's's's.", "Please find number {}. Is it there? Where is it?", "The colours of scene {} are pale.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=9_000, help="answers of each style")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each; the best one counts")
    settings = parser.parse_args()
    draw = random.Random(0)
    styles = {"short": short, "free": free, "odd": odd}
    made = {
        style: [make(draw, number, answer) for number in range(settings.answers)] for style, answer in styles.items()
    }
    made["mixed"] = [made[style][number] for number in range(settings.answers) for style in [list(styles)[number % 3]]]
    print("answers a second of one core; in brackets: characters an answer, share of answers that are unlike any other")
    for style, predictions in made.items():
        texts = {prediction.text for prediction in predictions}
        letters = sum(map(len, texts)) / len(texts)
        print(f"{style:6} ({letters:.0f}, {len(texts) / len(predictions):.0%})", end="")
        for name, repeats in (("new truths", settings.repeats), ("known truths", settings.repeats)):
            forget = name == "new truths"
            seconds = best(lambda p=predictions: [score_answer(one.question, one.text) for one in p], repeats, forget)
            print(f"   {name} {len(predictions) / seconds:8,.0f}", end="")
        print()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        path.write_text("".join(json.dumps(one.row()) + "\n" for one in made["mixed"]))
        count = len(made["mixed"])
        seconds = best(
            lambda: [score_answer(one.question, one.text) for one in read_predictions(path)], settings.repeats
        )
        print(f"mixed, read from a file, known truths {count / seconds:8,.0f}")
        seconds = best(lambda: Report.from_predictions(read_predictions(path)).write(folder), settings.repeats)
        print(f"mixed, file to report with baselines, intervals and tests {count / seconds:8,.0f}")


def best(run: Callable[[], object], repeats: int, forget: bool = False) -> float:
    """Least seconds of a core, whoever else wants it."""
    times = []
    for _ in range(repeats):
        if forget:
            _read_truth.cache_clear()
            _asked.cache_clear()
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return min(times)


def make(draw: random.Random, number: int, answer: Callable[..., str]) -> Prediction:
    """A question with its ground truth, and an answer in the style."""
    kind = draw.choice(["predicate", "predicate", "choice", "length", "length", "direction"])
    if kind == "length":
        measure = draw.choice(list(MEASURES))
        wording, noun = MEASURES[measure]
        truth = f"The {noun} is {draw.uniform(0.1, 90):.4f} {draw.choice(UNITS[:4])}."
        category, facts = f"{measure}_data", (noun, f"{draw.uniform(0.1, 90):.4f} {draw.choice(UNITS)}")
    elif kind == "direction":
        category, wording = "direction", "If you are at Region [0], where will you find Region [1]?"
        truth = f"Seen from there, Region [1] is near {draw.randint(1, 12)} o'clock in scene {number}."
        facts = ("direction", f"{draw.randint(1, 12)} o'clock")
    else:
        relation = draw.choice(list(STANCES))
        (word, other), region = STANCES[relation], draw.randint(0, 1)
        category = f"{relation}_{kind}" if kind == "predicate" or relation != "big" else "tall_choice"
        wording = (
            f"Is Region [0] {word} Region [1]?"
            if kind == "predicate"
            else f"Region [0] or Region [1], which is {word}?"
        )
        said = f"Region [{region}] is {draw.choice((word, other))} Region [{1 - region}]"
        truth = (
            f"{draw.choice(('Yes', 'No'))}, {said} (scene {number})." if kind == "predicate" else f"Region [{region}]."
        )
        facts = (draw.choice(("Yes, ", "No, ", "In fact, ", "")) if kind == "predicate" else "", said)
    qa_type = "qualitative" if kind in ("predicate", "choice") else "quantitative"
    question = Question(
        id=str(number), image_id=str(number // 4), question=wording, answer=truth, qa_type=qa_type, qa_category=category
    )
    return Prediction(question, answer(draw, number, category, *facts))


def short(draw: random.Random, number: int, category: str, lead: str, fact: str) -> str:
    if category.endswith(("_predicate", "_choice")):
        return f"{lead}{fact} (scene {number})."
    if category == "direction":
        return f"model\nRegion [1] is roughly at {fact} in scene {number}."
    return f"model\nThe {lead} of Region [0] is {fact}."


def free(draw: random.Random, number: int, category: str, lead: str, fact: str) -> str:
    of = "".join(f"*   **Region [{region}]:** The box around {draw.choice(OBJECTS)}.\n" for region in (0, 1)) + "\n"
    if category.endswith(("_predicate", "_choice")):
        return f"{of}{lead}judging by scene {number}, **{fact}**."
    say = f"Based on image {number}, the {lead} is approximately **{fact}**."
    return of + say + draw.choice(("", "\n\n**Note:** This is an estimate; a precise value would need a known scale."))


def odd(draw: random.Random, number: int, category: str, lead: str, fact: str) -> str:
    return draw.choice(ODD).format(number)


if __name__ == "__main__":
    main()

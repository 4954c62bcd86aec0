"""Accuracy against cost: what is written of the answers at each number of world tokens."""

from __future__ import annotations

import json

from experiments.ablations.budget_figure import draw
from experiments.ablations.budgets import Point, answers, comparisons, outcomes_of, point, text_of

OUTCOMES = {"world@64": {"a": 1, "b": 0, "c": 1}, "tokens_16@16": {"a": 0, "b": 0, "c": 1}}
COSTS = {64: (200.0, 0.5), 16: (152.0, 0.4)}


def test_points_and_tables():
    points = [point(name, 3, found, COSTS) for name, found in OUTCOMES.items()]
    assert points[0] == Point("world", 3, 64, right=2, questions=3, prompt_tokens=200.0, gflop=0.5)
    assert text_of(points) == (
        "arm,seed,tokens,right,questions,prompt_tokens,gflop,accuracy\n"
        "world,3,64,2,3,200.0,0.5,0.6667\n"
        "tokens_16,3,16,1,3,152.0,0.4,0.3333\n"
    )
    assert answers(OUTCOMES) == "id,world@64,tokens_16@16\na,1,0\nb,0,0\nc,1,1\n"


def test_a_comparison_is_at_the_same_number_over_all_seeds():
    mine, theirs = {"a": 1, "b": 1, "c": 1}, {"a": 0, "b": 1, "c": 0}
    seeds = {seed: {"world@4": theirs, "random@4": mine, "random@1": theirs} for seed in (0, 1)}
    pictures = {seed: {"a": "p", "b": "p", "c": "q"} for seed in (0, 1)}
    *_, line = comparisons(seeds, pictures, trained="random").splitlines()
    # Four pictures differ, one question each, all to one side: 2 of 2^4 choices of signs are as far.
    assert line == "| `world` | 4 | 100.0 against 33.3 | +66.7, +66.7 | 0.12 |"


def test_outcomes_are_the_scorers(tmp_path):
    asked = {"question": "Is Region [0] left of Region [1]?", "qa_type": "qualitative", "qa_category": "left_predicate"}
    rows = [
        asked | {"id": name, "ground_truth": "Yes, Region [0] is left of Region [1].", "prediction": text}
        for name, text in (("a", "Yes, it is."), ("b", "No."))
    ]
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert outcomes_of(path) == {"a": 1, "b": 0}


def test_the_picture_shows_every_series():
    points = [Point(arm, 0, n, 1, 2, 100.0 + n, 0.1 * n) for arm in ("world", "random_budget") for n in (64, 16, 4, 1)]
    points += [Point(f"tokens_{n}", 0, n, 1, 2, 100.0 + n, 0.1 * n) for n in (16, 4, 1)]
    whole = draw(points, best_constant=0.5)
    assert whole.startswith(b"\x89PNG")
    assert whole == draw(points, best_constant=0.5)
    assert whole != draw(points[:4], best_constant=0.5)

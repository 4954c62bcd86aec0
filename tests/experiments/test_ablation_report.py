"""The comparison of arms against numbers worked out by hand, and what the page says of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

import pytest
from scipy.stats import ttest_1samp

from experiments.ablations.compare import compare
from experiments.ablations.figure import draw
from experiments.ablations.folder import PREDICTIONS, SCORES, SUMMARY, RunFolder
from experiments.ablations.grid import Grid
from experiments.ablations.page import page, sentence
from experiments.ablations.report import write_report
from theworld.evaluation.predictions import Prediction
from theworld.evaluation.report import Report
from theworld.types import Question

PICTURES = 40
SEEDS = (0, 1, 2)


def question(seed: int, picture: int, number: int) -> Question:
    return Question(
        id=f"q{picture:02d}-{number}",
        image_id=f"picture{picture}",
        question=f"Is Region [0] to the left of Region [1] in {seed}?",
        answer="Yes." if picture % 2 else "No.",
        qa_type="qualitative",
        qa_category="left_predicate",
    )


def report(seed: int, is_right: Callable[[int, int], bool], *, tail: str = "") -> Report:
    """Two questions a picture."""
    asked = [(question(seed, p, n), is_right(p, n)) for p in range(PICTURES) for n in range(2)]
    answers = {True: {"Yes.": "Yes", "No.": "No"}, False: {"Yes.": "No", "No.": "Yes"}}
    return Report.from_predictions([Prediction(q, answers[right][q.answer] + tail) for q, right in asked])


@pytest.fixture(scope="module")
def reports() -> dict[tuple[str, int], Report]:
    """`world` misses 4 pictures, `worse` 20 to 22 more with every seed, `unsettled` 26 more with one seed only."""
    found = {}
    for seed in SEEDS:
        found["world", seed] = report(seed, lambda p, n: p >= 4)
        found["worse", seed] = report(seed, lambda p, n, seed=seed: p >= 24 + seed)
        found["unsettled", seed] = report(seed, lambda p, n, seed=seed: p >= (30 if seed == 0 else 4), tail=".")
        found["same", seed] = report(seed, lambda p, n: p >= 4 and (p, n) != (9, 1) or (p, n) == (0, 0))
    return found


def test_accuracies_and_differences_by_hand(reports):
    found = compare(reports, reference="world")
    assert found.accuracies["world"]["overall"].by_seed == (0.9, 0.9, 0.9)
    assert found.accuracies["world"]["overall"].n == (80, 80, 80)
    assert found.accuracies["world"]["overall"].best_constant == 0.5
    assert set(found.accuracies["world"]) == {"overall", "qualitative"}  # nothing quantitative was asked
    worse = found.differences["worse"]["overall"]
    assert worse.by_seed == pytest.approx((-0.5, -0.525, -0.55))
    assert worse.questions.interval.low < -0.525 < worse.questions.interval.high < -0.4
    assert worse.training is not None
    expected = ttest_1samp(worse.by_seed, 0)
    assert worse.training.p_value == pytest.approx(expected.pvalue)
    assert worse.training.interval.low == pytest.approx(expected.confidence_interval().low)
    assert worse.training.p_holm == pytest.approx(3 * expected.pvalue)
    assert worse.verdict == "training"


def test_one_seed_that_differs_is_not_a_difference_of_the_arm(reports):
    """The pooled questions alone would have called it one: 52 of 240 of them, p below 0.001."""
    unsettled = compare(reports, reference="world").differences["unsettled"]["overall"]
    assert unsettled.by_seed == pytest.approx((-0.65, 0, 0))
    assert unsettled.questions.p_holm < 0.001
    assert unsettled.verdict == "models"


def test_equal_arms_are_not_told_apart(reports):
    same = compare(reports, reference="world").differences["same"]["overall"]
    assert same.mean == 0
    assert (same.questions.p_value, same.questions.p_holm, same.verdict) == (1.0, 1.0, "none")
    assert same.questions.interval.low < 0 < same.questions.interval.high


def test_the_same_answers_are_an_alarm_and_the_page_says_so(reports):
    assert compare(reports, reference="world").alarms == ()
    copied = reports | {("same", 1): reports["world", 1]}
    found = compare(copied, reference="world")
    (alarm,) = found.alarms
    assert alarm.startswith("world and same gave the same answer to each of 80 questions with seed 1")
    text = page(found, asks=dict.fromkeys(found.accuracies, "asked"), runs="", made="")
    assert f"> **Error: {alarm}." in text


def test_other_questions_and_missing_runs_are_refused(reports):
    other = reports | {("same", 2): reports["same", 1]}
    with pytest.raises(ValueError, match="seed 2: same answered other questions than world"):
        compare(other, reference="world")
    missing = {key: found for key, found in reports.items() if key != ("same", 2)}
    with pytest.raises(ValueError, match="found no answers of same with seed 2"):
        compare(missing, reference="world")


def test_the_sentences_say_no_more_than_was_found(reports):
    found = compare(reports, reference="world")
    assert sentence("worse", found).startswith(
        "`worse` is **worse** than `world`, and would be with other seeds (−52.5 points; by seed −50.0, −52.5, −55.0; "
        "p < 0.001 for other questions, p = 0.0023 for other seeds)"
    )
    assert "whether other seeds would give the same **is open**" in sentence("unsettled", found)
    assert "**no difference** from `world` **is shown** (0.0 points;" in sentence("same", found)


def test_a_seed_that_goes_the_other_way_is_told(reports):
    mixed = reports | {("worse", 2): report(2, lambda p, n: p >= 3)}
    assert "than those of `world`, on average, not with every seed; whether" in sentence(
        "worse", compare(mixed, reference="world")
    )


def test_one_seed_says_nothing_of_training(reports):
    first = {key: found for key, found in reports.items() if key[1] == 0}
    found = compare(first, reference="world")
    assert found.differences["worse"]["overall"].training is None
    assert found.differences["worse"]["overall"].verdict == "models"
    text = page(found, asks=dict.fromkeys(found.accuracies, "asked"), runs="", made="")
    assert "| `worse` | overall | −50.0 | −50.0 |" in text
    assert draw(found).startswith(b"\x89PNG")


def test_the_report_is_written_from_the_folders(reports, tmp_path):
    (tmp_path / "worse.yaml").write_text("# Worse: asks\n# a thing?\nmodel: {}\n")
    arms = {"world": None, "worse": tmp_path / "worse.yaml"}
    grid = Grid(budget=(tmp_path / "budget.yaml",), arms=arms, reference="world", seeds=SEEDS)
    folders = {}
    for arm in arms:
        for seed in SEEDS:
            folder = folders[arm, seed] = RunFolder(tmp_path / f"{arm}{seed}", {"trainer": {}}, "order")
            folder.path.mkdir()
            reports[arm, seed].write(folder.path)
            assert {path.name for path in folder.path.iterdir()} == {PREDICTIONS, SCORES, SUMMARY}
            folder.finish(seconds=7)
    write_report(grid, folders, tmp_path, command="--grid g.yaml")
    text = (tmp_path / "report.md").read_text()
    assert "| `worse` | Worse: asks a thing? |" in text
    assert "python -m experiments.ablations.run --grid g.yaml" in text
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["differences"]["worse"]["overall"]["verdict"] == "training"
    assert facts["accuracies"]["world"]["overall"]["by_seed"] == [0.9, 0.9, 0.9]
    with (tmp_path / "answers_seed1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    assert sum(int(row["world"]) for row in rows) == 72
    assert sum(int(row["worse"]) for row in rows) == 30
    (folders["worse", 1].path / "result.json").unlink()
    with pytest.raises(ValueError, match="worse1: found no result.json, expected a finished run"):
        write_report(grid, folders, tmp_path, command="")

"""The report: numbers, table, files."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from theworld.evaluation.answers import SCORER_VERSION
from theworld.evaluation.report import Prediction, Report, read_predictions
from theworld.evaluation.statistics import cluster_bootstrap, wilson_interval

if TYPE_CHECKING:
    from conftest import Ask


@pytest.fixture(scope="module")
def predictions(ask: Ask) -> list[Prediction]:
    """Eight yes/no questions (6 right, 1 unparsed), four widths (2 right, 1 unparsed), two to an image."""
    tall = [
        ask("tall_predicate", "Is Region [0] taller than Region [1]?", answer, id=f"a{i}", image=f"image-{i // 2}")
        for i, answer in enumerate(["Yes.", "No."] * 4)
    ]
    wide = [
        ask("width_data", "How wide is Region [0]?", f"{width} m", id=f"b{i}", image=f"image-{i // 2}")
        for i, width in enumerate([1, 2, 4, 8])
    ]
    texts = ["Yes", "No", "yes.", "no.", "It is taller.", "Region [1] is taller.", "No", "Maybe"]
    texts += ["1 m", "250 cm", "1 m", "wide"]
    return [Prediction(question, text) for question, text in zip([*tall, *wide], texts, strict=True)]


def _counts_and_p(report: Report) -> tuple[int, int, float]:
    test = report.paired_test
    return test.only_first, test.only_second, test.p_value


def test_rows(predictions: list[Prediction]) -> None:
    report = Report.from_predictions(predictions)
    rows = [(row.name, row.n, row.correct, row.unread, row.outcomes["abstained"]) for row in report.groups]
    assert rows == [
        ("tall/short", 8, 6, 1, 1),
        ("width", 4, 2, 1, 0),
        ("qualitative", 8, 6, 1, 1),
        ("quantitative", 4, 2, 1, 0),
        ("overall", 12, 8, 2, 1),
    ]
    assert [row.name for row in report.categories] == ["tall_predicate", "width_data"]
    assert [row.best_constant for row in report.groups] == [0.5, 0.25, 0.5, 0.25, 5 / 12]
    assert [row.chance for row in report.groups] == [0.5, None, 0.5, None, None]
    assert [row.blind for row in report.groups] == [None] * 5
    assert report.row("quantitative").relative_error == pytest.approx((0 + 0.25 + 0.75) / 3)
    assert report.row("qualitative").relative_error is None
    assert report.row("overall").accuracy == 8 / 12
    wilson = wilson_interval(8, 12)
    interval = report.row("overall").interval
    assert interval.low <= wilson.low < wilson.high <= interval.high
    # `yes` is right on a0, a2, a4, a6 (the model too, but for a6); the shortest best width, 1 m, hits b0 alone.
    assert _counts_and_p(report) == pytest.approx((4, 1, 2 * (1 + 5) / 2**5))


def test_a_rows_interval_knows_its_images_and_its_errors_their_units(ask: Ask) -> None:
    """Forty answers about four images, right or wrong image by image, beside hours that must not count as lengths."""
    wide = [
        ask("width_data", "How wide is Region [0]?", "1 m", id=f"w{i:02}", image=f"image-{i // 10}") for i in range(40)
    ]
    hours = [ask("direction", "Where is Region [1]?", "1 o'clock", id=f"x{i}", image=f"hour-{i}") for i in range(2)]
    texts = ["1 m"] * 10 + ["2 m"] * 10 + ["1 m"] * 10 + ["2 m"] * 10 + ["4 o'clock", "1 o'clock"]
    report = Report.from_predictions([Prediction(q, text) for q, text in zip([*wide, *hours], texts, strict=True)])
    by_image = cluster_bootstrap([1.0] * 10 + [0.0] * 10 + [1.0] * 10 + [0.0] * 10, [q.image_id for q in wide])
    wilson = wilson_interval(20, 40)
    assert report.row("width").interval == by_image
    assert by_image.low < wilson.low < wilson.high < by_image.high
    assert (report.row("overall").relative_error, report.row("overall").degrees) == (0.5, 45)
    assert (report.row("direction").relative_error, report.row("width").degrees) == (None, None)


def test_groups_are_those_of_the_paper_and_directions_err_in_degrees(ask: Ask) -> None:
    relations = ["front", "behind", "thin", "wide", "short", "tall", "small", "big", "right", "left", "above", "below"]
    rows = [ask(f"{name}_predicate", f"Is Region [0] {name} Region [1]?", "Yes.", id=name) for name in relations]
    measures = ["height", "width", "vertical_distance", "horizontal_distance", "distance"]
    rows += [ask(f"{name}_data", f"Which {name}?", "1 m", id=name) for name in measures]
    rows += [ask("direction", "Where is Region [1]?", "1 o'clock", id=f"hour-{hour}") for hour in range(3)]
    texts = ["Yes."] * 12 + ["1 m"] * 5 + ["12 o'clock", "4 o'clock", "to the left"]
    report = Report.from_predictions([Prediction(q, text) for q, text in zip(rows, texts, strict=True)])
    assert [(row.name, row.n) for row in report.groups] == [
        *(("below/above", 2), ("left/right", 2), ("big/small", 2), ("tall/short", 2), ("wide/thin", 2)),
        *(("behind/front", 2), ("direct distance", 1), ("horizontal distance", 1), ("vertical distance", 1)),
        *(("width", 1), ("height", 1), ("direction", 3), ("qualitative", 12), ("quantitative", 8), ("overall", 20)),
    ]
    direction = report.row("direction")
    assert (direction.correct, direction.unread, direction.degrees) == (1, 1, (30 + 90) / 2)
    assert (report.row("width").relative_error, report.row("width").degrees) == (0.0, None)


def test_a_perfect_model_beats_the_constant_and_an_empty_one_does_not(predictions: list[Prediction]) -> None:
    perfect = Report.from_predictions([Prediction(p.question, p.question.answer) for p in predictions])
    silent = Report.from_predictions([Prediction(p.question, "") for p in predictions])
    assert (perfect.row("overall").accuracy, silent.row("overall").accuracy) == (1.0, 0.0)
    assert _counts_and_p(perfect) == pytest.approx((7, 0, 2 / 2**7))
    assert _counts_and_p(silent) == pytest.approx((0, 5, 2 / 2**5))
    assert perfect.difference.low > 0 > silent.difference.high
    assert silent.row("overall").outcomes["empty"] == 12


def test_blind_answers_are_a_baseline_of_the_same_questions(predictions: list[Prediction]) -> None:
    blind = [Prediction(p.question, "Yes." if p.question.qa_type == "qualitative" else "1 m") for p in predictions]
    report = Report.from_predictions(predictions, blind=blind[::-1])
    assert [row.blind for row in report.groups] == [0.5, 0.25, 0.5, 0.25, 5 / 12]
    assert report.blind_test == report.paired_test  # they answer what the best constants do
    with pytest.raises(ValueError, match="question 'b3': found no blind answer; expected one to each question"):
        Report.from_predictions(predictions, blind=blind[:-1])
    other = [*blind[:-1], Prediction(replace(blind[-1].question, answer="3 m"), "1 m")]
    with pytest.raises(ValueError, match="question 'b3': found a blind answer to another question or ground truth"):
        Report.from_predictions(predictions, blind=other)


def test_table_ends_with_the_paired_test(predictions: list[Prediction]) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(Report.from_predictions(predictions, blind=predictions).table())
    lines = [line.strip() for line in console.export_text().splitlines() if line.strip()]
    heading = next([cell.strip() for cell in line.strip("\u2503").split("\u2503")] for line in lines if "group" in line)
    assert heading[4:] == ["error", "constant*", "blind", "chance", "abstained", "unparsed"]
    cells = [
        [cell.strip() for cell in line.strip("\u2502").split("\u2502")] for line in lines if line.startswith("\u2502")
    ]
    assert [row[:3] + row[4:] for row in cells] == [
        ["tall/short", "8", "75.0", "-", "50.0", "75.0", "50.0", "1", "0"],
        ["width", "4", "50.0", "0.33", "25.0", "50.0", "-", "0", "1"],
        ["qualitative", "8", "75.0", "-", "50.0", "75.0", "50.0", "1", "0"],
        ["quantitative", "4", "50.0", "0.33", "25.0", "50.0", "-", "0", "1"],
        ["overall", "12", "66.7", "0.33", "41.7", "66.7", "-", "1", "1"],
    ]
    assert lines[-2] == "model 66.7, best constant 41.7; alone right on 4 and 1: exact McNemar p = 0.375"
    assert lines[-1] == "model 66.7, blind 66.7; alone right on 0 and 0: exact McNemar p = 1"


def test_files_have_the_same_bytes_and_score_to_the_same_report(predictions: list[Prediction], tmp_path: Path) -> None:
    report = Report.from_predictions(predictions)
    paths = report.write(tmp_path / "one" / "two")
    again = Report.from_predictions(predictions[::-1]).write(tmp_path / "again")
    assert [path.name for path in paths] == ["predictions.jsonl", "scores.jsonl", "summary.json"]
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert Report.from_predictions(read_predictions(paths[0])) == report
    assert json.loads(paths[2].read_text()) == report.summary()
    assert json.loads(paths[1].read_text().split("\n")[9]) == {
        "id": "b1",
        "outcome": "correct",
        "correct": True,
        "ground_truth": 2.0,
        "prediction": 2.5,
        "unit": "m",
        "error": 0.25,
        "qa_category": "width_data",
        "best_constant_correct": False,
        "scorer_version": SCORER_VERSION,
    }


def test_the_hash_tells_predictions_apart(predictions: list[Prediction]) -> None:
    changed = [Prediction(predictions[0].question, "Yes!"), *predictions[1:]]
    hashes = [Report.from_predictions(p).summary()["predictions_sha256"] for p in (predictions, predictions, changed)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_bad_input_is_refused(predictions: list[Prediction]) -> None:
    with pytest.raises(ValueError, match="found no predictions"):
        Report.from_predictions([])
    with pytest.raises(ValueError, match="found question id 'a0' twice"):
        Report.from_predictions([*predictions, predictions[0]])
    with pytest.raises(ValueError, match="found no row 'left_choice'; expected one of tall/short"):
        Report.from_predictions(predictions).row("left_choice")

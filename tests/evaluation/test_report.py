"""The report: numbers, table, files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from theworld.evaluation.answers import SCORER_VERSION
from theworld.evaluation.report import Prediction, Report, read_predictions
from theworld.evaluation.statistics import wilson_interval

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
    assert [(row.name, row.n, row.correct, row.unparsed) for row in report.rows] == [
        ("tall_predicate", 8, 6, 1),
        ("width_data", 4, 2, 1),
        ("qualitative", 8, 6, 1),
        ("quantitative", 4, 2, 1),
        ("overall", 12, 8, 2),
    ]
    assert [row.best_constant for row in report.rows] == [0.5, 0.25, 0.5, 0.25, 5 / 12]
    assert [row.chance for row in report.rows] == [0.5, None, 0.5, None, None]
    assert report.row("quantitative").mean_relative_error == pytest.approx((0 + 0.25 + 0.75) / 3)
    assert report.row("qualitative").mean_relative_error is None
    assert report.row("overall").accuracy == 8 / 12
    wilson = wilson_interval(8, 12)
    interval = report.row("overall").interval
    assert interval.low <= wilson.low < wilson.high <= interval.high
    # `yes` is right on a0, a2, a4, a6 (the model too, but for a6); the shortest best width, 1 m, hits b0 alone.
    assert _counts_and_p(report) == pytest.approx((4, 1, 2 * (1 + 5) / 2**5))


def test_a_perfect_model_beats_the_constant_and_an_empty_one_does_not(predictions: list[Prediction]) -> None:
    perfect = Report.from_predictions([Prediction(p.question, p.question.answer) for p in predictions])
    silent = Report.from_predictions([Prediction(p.question, "") for p in predictions])
    assert (perfect.row("overall").accuracy, silent.row("overall").accuracy) == (1.0, 0.0)
    assert _counts_and_p(perfect) == pytest.approx((7, 0, 2 / 2**7))
    assert _counts_and_p(silent) == pytest.approx((0, 5, 2 / 2**5))
    assert perfect.difference.low > 0 > silent.difference.high
    assert silent.row("overall").unparsed == 12


def test_table_ends_with_the_paired_test(predictions: list[Prediction]) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(Report.from_predictions(predictions).table())
    lines = [line.strip() for line in console.export_text().splitlines() if line.strip()]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert [row[:3] + row[4:] for row in cells] == [
        ["tall_predicate", "8", "75.0", "50.0", "50.0", "1"],
        ["width_data", "4", "50.0", "25.0", "-", "1"],
        ["qualitative", "8", "75.0", "50.0", "50.0", "1"],
        ["quantitative", "4", "50.0", "25.0", "-", "1"],
        ["overall", "12", "66.7", "41.7", "-", "2"],
    ]
    assert lines[-1] == "model 66.7, best constant 41.7; alone right on 4 and 1: exact McNemar p = 0.375"
    assert lines[-2].startswith("* oracle")


def test_files_have_the_same_bytes_and_score_to_the_same_report(predictions: list[Prediction], tmp_path: Path) -> None:
    report = Report.from_predictions(predictions)
    paths = report.write(tmp_path / "one" / "two")
    again = Report.from_predictions(predictions[::-1]).write(tmp_path / "again")
    assert [path.name for path in paths] == ["predictions.jsonl", "summary.json"]
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert Report.from_predictions(read_predictions(paths[0])) == report
    assert json.loads(paths[1].read_text()) == report.summary()
    line = json.loads(paths[0].read_text().split("\n")[9])
    assert line["outcome"] == {
        "correct": True,
        "parsed": True,
        "truth": 2.0,
        "prediction": 2.5,
        "relative_error": 0.25,
    }
    assert (line["id"], line["prediction"], line["scorer_version"]) == ("b1", "250 cm", SCORER_VERSION)


def test_the_hash_tells_predictions_apart(predictions: list[Prediction]) -> None:
    changed = [Prediction(predictions[0].question, "Yes!"), *predictions[1:]]
    hashes = [Report.from_predictions(p).summary()["predictions_sha256"] for p in (predictions, predictions, changed)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_bad_input_is_refused(predictions: list[Prediction], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no predictions"):
        Report.from_predictions([])
    with pytest.raises(ValueError, match="found question id 'a0' twice"):
        Report.from_predictions([*predictions, predictions[0]])
    with pytest.raises(ValueError, match="found no row 'left_choice'; expected one of tall_predicate"):
        Report.from_predictions(predictions).row("left_choice")
    broken = tmp_path / "predictions.jsonl"
    broken.write_text('{"id": "a"}\n')
    with pytest.raises(ValueError, match="predictions.jsonl, line 1: found no text for image_id"):
        read_predictions(broken)
    broken.write_text("\n{")
    with pytest.raises(ValueError, match="predictions.jsonl, line 2: found no JSON"):
        read_predictions(broken)

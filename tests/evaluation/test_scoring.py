"""`theworld score`: files in, table and files out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from theworld.evaluation.answers import SCORER_VERSION
from theworld.evaluation_cli import evaluation_command

TALL = {"question": "Is Region [0] taller than Region [1]?", "qa_type": "qualitative", "qa_category": "tall_predicate"}
WIDE = {"question": "How wide is Region [0]?", "qa_type": "quantitative", "qa_category": "width_data"}
ROWS = [
    TALL | {"id": "b", "ground_truth": "No.", "prediction": "Region [1] is taller."},
    TALL | {"id": "a", "ground_truth": "Yes.", "prediction": "I cannot tell."},
    WIDE | {"id": "c", "ground_truth": "2 feet", "prediction": "60 cm"},
    WIDE | {"id": "d", "ground_truth": "2 feet", "prediction": "60 pixels"},
]
KEYS = ("id", "outcome", "correct", "ground_truth", "prediction")


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    return write(tmp_path / "predictions.jsonl", ROWS)


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]


def test_scores_stand_in_the_order_of_the_file(
    predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation_command(["score", str(predictions), "--output", str(tmp_path / "out")])
    assert [tuple(row[key] for key in KEYS) for row in read(tmp_path / "out")] == [
        ("b", "correct", True, "no", "no"),
        ("a", "abstained", False, "yes", None),
        ("c", "correct", True, 0.6096, 0.6),
        ("d", "pixels", False, 0.6096, None),
    ]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["scorer_version"], summary["n"], summary["compat"]) == (SCORER_VERSION, 4, "none")
    assert summary["rows"]["overall"]["accuracy"] == 0.5
    assert summary["rows"]["width"]["outcomes"]["pixels"] == 1
    printed = capsys.readouterr().out
    assert "tall/short" in printed
    assert "pixels" in printed


def test_the_same_file_gives_the_same_bytes(predictions: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        evaluation_command(["score", str(predictions), "--output", str(folder)])
    for name in ("scores.jsonl", "summary.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_blind_answers_and_quirks(predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blind = write(tmp_path / "blind.jsonl", [row | {"prediction": "Yes."} for row in ROWS])
    words = ["--output", str(tmp_path / "out"), "--blind", str(blind), "--compat", "score_json"]
    evaluation_command(["score", str(predictions), *words])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rows"]["tall/short"]["blind"] == 0.5
    assert summary["blind_test"]["only_model_right"] == 2
    assert summary["rows"]["width"]["mean_relative_error"] == pytest.approx(100 * 0.0096 / 0.6097)
    assert "blind 25.0" in capsys.readouterr().out


def test_several_models_have_a_table_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"model": model} for row in ROWS for model in ("first", "second")]
    rows[0]["prediction"] = "Yes."
    evaluation_command(["score", str(write(tmp_path / "p.jsonl", rows)), "--output", str(tmp_path / "out")])
    assert [(row["model"], row["id"], row["correct"]) for row in read(tmp_path / "out")[:2]] == [
        ("first", "b", False),
        ("second", "b", True),
    ]
    models = json.loads((tmp_path / "out" / "summary.json").read_text())["models"]
    assert [models[name]["rows"]["overall"]["correct"] for name in ("first", "second")] == [1, 2]
    assert all(name in capsys.readouterr().out for name in ("first",))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ROWS[0] | {"ground_truth": "Quite."},
            r"row 'b' \(tall_predicate\): the ground truth 'Quite\.' does not parse",
        ),
        (ROWS[0] | {"qa_category": "colour"}, r"p.jsonl, line 1: row 'b': found category 'colour'"),
        (ROWS[0] | {"id": "c"}, r"line 3 \(id 'c'\): found another row of this id"),
    ],
)
def test_a_bad_row_ends_it_with_a_message(tmp_path: Path, row: dict[str, str], message: str) -> None:
    path = write(tmp_path / "p.jsonl", [row, *ROWS[1:]])
    with pytest.raises(SystemExit, match=rf"theworld score: .*{message}"):
        evaluation_command(["score", str(path), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


VSR = {
    "question": "Is the following statement true? The cat is under the table.",
    "qa_type": "qualitative",
    "qa_category": "under_predicate",
    "benchmark": "vsr",
    "choices": ["Yes.", "No."],
}
CAPTIONS = [
    VSR | {"id": "b", "ground_truth": "Yes.", "prediction": "True."},
    VSR | {"id": "a", "ground_truth": "No.", "prediction": "Yes."},
    VSR | {"id": "c", "ground_truth": "No.", "prediction": "A table."},
]


def test_the_benchmark_of_the_rows_decides_how_they_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By SpatialRGPT-Bench's rules there would be no such category."""
    evaluation_command(["score", str(write(tmp_path / "p.jsonl", CAPTIONS)), "--output", str(tmp_path / "out")])
    assert [tuple(row[key] for key in KEYS) for row in read(tmp_path / "out")] == [
        ("b", "correct", True, "yes", "yes"),
        ("a", "wrong", False, "no", "yes"),
        ("c", "unparsed", False, "no", None),
    ]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["benchmark"] == "vsr"
    assert (summary["report"]["overall"]["correct"], summary["report"]["overall"]["unparsed"]) == (1, 1)
    assert "33.3" in capsys.readouterr().out


def test_two_models_may_answer_the_same_choices(tmp_path: Path) -> None:
    rows = [row | {"model": model} for row in CAPTIONS for model in ("first", "second")]
    rows[3]["prediction"] = "No."
    evaluation_command(["score", str(write(tmp_path / "p.jsonl", rows)), "--output", str(tmp_path / "out")])
    models = json.loads((tmp_path / "out" / "summary.json").read_text())["models"]
    assert [models[name]["report"]["overall"]["correct"] for name in ("first", "second")] == [1, 2]


@pytest.mark.parametrize(
    ("row", "words", "message"),
    [
        (
            ROWS[2] | {"id": "d"},
            [],
            r"found answers to several benchmarks: vsr \(.*line 1\), no benchmark \(.*line 3\); exp",
        ),
        (CAPTIONS[1] | {"benchmark": "blink"}, [], r"several benchmarks: vsr \(.*\), blink \(.*line 3\)"),
        (CAPTIONS[1] | {"choices": ["Yes.", 0]}, [], r"line 3 \(id 'a'\): found 0 choices, expected `choices`"),
        (CAPTIONS[1] | {"ground_truth": "Maybe."}, [], r"row 'a': found the truth 'Maybe\.', expected Yes or No"),
        (CAPTIONS[1], ["--compat=printed"], "found blind, compat or a judge with answers to vsr, expected none"),
    ],
)
def test_choices_that_cannot_be_scored_are_refused(
    tmp_path: Path, row: dict[str, object], words: list[str], message: str
) -> None:
    path = write(tmp_path / "p.jsonl", [CAPTIONS[0], CAPTIONS[2], row])
    with pytest.raises(SystemExit, match=rf"theworld score: .*{message}"):
        evaluation_command(["score", str(path), "--output", str(tmp_path / "out"), *words])
    assert not (tmp_path / "out").exists()

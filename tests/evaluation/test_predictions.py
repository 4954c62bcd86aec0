"""Predictions on disk: the one format, and broken rows refused by file, line and id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from theworld.evaluation.predictions import KEYS, Prediction, read_predictions
from theworld.types import Question

ROW = {
    "id": "q1",
    "question": "How wide is Region [0]?",
    "ground_truth": "2 feet",
    "prediction": "About 60 cm.",
    "qa_type": "quantitative",
    "qa_category": "width_data",
}
QUESTION = Question(
    id="q1",
    image_id="of q1",
    question="How wide is Region [0]?",
    answer="2 feet",
    qa_type="quantitative",
    qa_category="width_data",
)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_six_keys_are_enough_and_others_are_ignored(tmp_path: Path) -> None:
    more = ROW | {"id": "q2", "image": "kitchen", "regions": [[0, 0, 1, 1]], "arm": "real", "judge": None}
    third = ROW | {"id": "q3", "image_id": "hall", "model": "tiny"}
    found = read_predictions(write(tmp_path / "p.jsonl", ROW, "\n", more, third))
    assert found[0] == Prediction(QUESTION, "About 60 cm.")
    assert [(p.question.id, p.question.image_id, p.model) for p in found[1:]] == [
        ("q2", "kitchen", ""),
        ("q3", "hall", "tiny"),
    ]


def test_a_prediction_is_read_as_it_was_written(tmp_path: Path) -> None:
    text = 'two\nlines \u2028 and a "quote"'
    written = [Prediction(QUESTION, text), Prediction(QUESTION, text, model="tiny")]
    assert read_predictions(write(tmp_path / "p.jsonl", *(p.row() for p in written))) == written
    assert set(KEYS) <= set(written[0].row())


def test_a_repeated_row_counts_once_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    assert len(read_predictions(write(path, ROW, ROW | {"arm": "real"}, ROW | {"model": "tiny"}))) == 2
    write(path, ROW, ROW | {"id": "q2"}, ROW | {"prediction": "1 m"})
    with pytest.raises(ValueError, match=r"p.jsonl, line 3 \(id 'q1'\): .* with prediction different, in line 1"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"line 2: found no JSON"),
        ("[1]", r"line 2: found a list, expected an object with id, question"),
        ("9" * 5000, r"line 2: found no JSON"),
        ({key: ROW[key] for key in KEYS if key != "prediction"}, r"line 2 \(id 'q1'\): found no prediction"),
        (ROW | {"ground_truth": 2}, r"line 2 \(id 'q1'\): found ground_truth 2; expected text"),
        (ROW | {"id": None}, r"line 2: found id None; expected text"),
        (ROW | {"id": ""}, r"line 2: found an empty id; expected text"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: object, message: str) -> None:
    path = write(tmp_path / "p.jsonl", ROW | {"id": "q0"}, row)
    with pytest.raises(ValueError, match=message):
        read_predictions(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no row, expected one prediction a line"):
        read_predictions(write(tmp_path / "p.jsonl", "\n"))


def test_a_byte_order_mark_is_no_fault_and_other_encodings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode())
    assert read_predictions(path) == [Prediction(QUESTION, "About 60 cm.")]
    path.write_bytes(json.dumps(ROW).encode("utf-16"))
    with pytest.raises(ValueError, match=r"p\.jsonl, line 1: found no UTF-8 .*save the file as UTF-8"):
        read_predictions(path)
    with pytest.raises(ValueError, match=r"p\.jsonl, line 2: found no JSON"):
        read_predictions(write(path, ROW, "[" * 100_000))

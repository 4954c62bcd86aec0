"""Answered questions on disk: JSON Lines, one object a line, the one format of all commands.

    {"id": "q1", "question": "How wide is Region [0]?", "ground_truth": "2 feet", "prediction": "About 60 cm.",
     "qa_type": "quantitative", "qa_category": "width_data"}

`image` (or `image_id`), a name, says which questions share a picture and are not independent; without it each question
counts as a picture of its own. `model` lets one file hold the answers of several models. `theworld evaluate` adds
`benchmark`, which says by what rules the answers are scored, and `choices` and `group` of a question that offers some.
All other keys are ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from theworld.types import Question

KEYS = ("id", "question", "ground_truth", "prediction", "qa_type", "qa_category")
"""What every row needs, as text."""

ASKED = ("benchmark", "group", "choices")
"""What a row may say of the benchmark that asked."""


@dataclass(frozen=True)
class Prediction:
    """A question and the text that a model answered.

    Attributes:
        question: What was asked.
        text: What the model answered.
        model: Which model, where a file holds several.
        where: File and line it was read from, for messages.
        benchmark: Which benchmark asked, where the file says it.
        choices: What can be answered, in the order of their letters; none for a free answer.
        group: What the benchmark's own number averages over; empty: the category.
    """

    question: Question
    text: str
    model: str = ""
    where: str = field(default="", compare=False)
    benchmark: str = ""
    choices: tuple[str, ...] = ()
    group: str = ""

    def row(self) -> dict[str, str]:
        """The row of a predictions file."""
        question = self.question
        model = {"model": self.model} if self.model else {}
        return model | {
            "id": question.id,
            "image": question.image_id,
            "question": question.question,
            "ground_truth": question.answer,
            "prediction": self.text,
            "qa_type": question.qa_type,
            "qa_category": question.qa_category,
        }


def read_predictions(path: str | Path) -> list[Prediction]:
    """The predictions of a file, in its order; a row that stands there twice, the same in all it says, is read once.

    Raises:
        ValueError: A row is not a prediction, or says something else of a question than an earlier one; the message
            names file, line and id.
    """
    found: dict[tuple[str, str], tuple[int, Prediction]] = {}
    with Path(path).open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            prediction = _prediction(line, f"{path}, line {number}")
            key = prediction.model, prediction.question.id
            first, before = found.setdefault(key, (number, prediction))
            if before is not prediction and before != prediction:
                raise ValueError(
                    f"{path}, line {number} (id {prediction.question.id!r}): found another row of this id, with "
                    f"{_difference(before, prediction)} different, in line {first}; expected one answer a question; "
                    "give every question its own id, and answers of several models a key `model`"
                )
    if not found:
        raise ValueError(f"{path}: found no row, expected one prediction a line; was the run that writes it finished?")
    return [prediction for _, prediction in found.values()]


def _prediction(line: str, where: str) -> Prediction:
    try:
        row = json.loads(line)
    except ValueError as error:  # of JSON, or of a number too long to convert
        raise ValueError(f"{where}: found no JSON ({error}); expected one prediction a line") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: found a {type(row).__name__}, expected an object with {', '.join(KEYS)}")
    faults = [
        f"{key} {row[key]!r:.60}" if key in row else f"no {key}" for key in KEYS if not isinstance(row.get(key), str)
    ]
    if faults or not row["id"]:
        name = f" (id {row['id']!r})" if row.get("id") else ""
        raise ValueError(
            f"{where}{name}: found {', '.join(faults) or 'an empty id'}; expected text for each of {', '.join(KEYS)}"
        )
    image = next((row[key] for key in ("image", "image_id") if isinstance(row.get(key), str)), f"of {row['id']}")
    named = {key: row[key] for key in ("model", "benchmark", "group") if isinstance(row.get(key), str)}
    if _is_texts(choices := row.get("choices")):
        named["choices"] = tuple(choices)
    question = Question(
        id=row["id"],
        image_id=image,
        question=row["question"],
        answer=row["ground_truth"],
        qa_type=row["qa_type"],
        qa_category=row["qa_category"],
    )
    return Prediction(question, row["prediction"], where=where, **named)


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _difference(first: Prediction, second: Prediction) -> str:
    rows = [one.row() | {key: getattr(one, key) for key in ASKED} for one in (first, second)]
    return ", ".join(key for key in rows[0] if rows[0][key] != rows[1][key])

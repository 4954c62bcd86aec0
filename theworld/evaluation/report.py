"""Predictions → the table that a reader sees, the summary that a program reads, the files that re-score to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.table import Table

from theworld.evaluation.answers import SCORER_VERSION, Score, Value, parse_truth, score_against
from theworld.evaluation.asked import asked
from theworld.evaluation.baselines import BestConstant, best_constants
from theworld.evaluation.compat import Compat, official
from theworld.evaluation.predictions import Prediction, read_predictions
from theworld.evaluation.rows import Row, rows_of
from theworld.evaluation.statistics import Interval, PairedTest, cluster_bootstrap, mcnemar_exact
from theworld.evaluation.table import table_of

__all__ = ["Prediction", "Report", "Row", "read_predictions"]

Json = str | float | None | list["Json"] | dict[str, "Json"]

UNITS = {"distance": "m", "direction": "h"}
"""Unit of a parsed length and of a parsed direction in `scores.jsonl`."""

_LINE = json.JSONEncoder(sort_keys=True, ensure_ascii=True, allow_nan=False)


@dataclass(frozen=True)
class Report:
    """Scored predictions of one model on one set.

    Attributes:
        predictions: In the order of their question ids.
        scores: One a prediction.
        constant_right: Whether the best constant of its template answers the question right, one a prediction.
        blind_right: Whether the model without the image did; None without its predictions.
        constants: Best constant of every template.
        groups: The paper's groups, then qualitative, quantitative (each where it has questions) and overall.
        categories: One a category.
        paired_test: Exact McNemar test of the model (first) against the best constant (second), over all questions. It
            treats questions as independent; `difference` does not.
        difference: 95 % interval of accuracy minus best constant, from a bootstrap over images.
        blind_test: The same test against the model without the image.
        compat: Which quirks of the official script the scores have.
    """

    predictions: tuple[Prediction, ...]
    scores: tuple[Score, ...]
    constant_right: tuple[bool, ...]
    blind_right: tuple[bool, ...] | None
    constants: dict[str, BestConstant]
    groups: tuple[Row, ...]
    categories: tuple[Row, ...]
    paired_test: PairedTest
    difference: Interval
    blind_test: PairedTest | None
    compat: Compat

    @classmethod
    def from_predictions(
        cls,
        predictions: Sequence[Prediction],
        *,
        blind: Sequence[Prediction] | None = None,
        compat: Compat = "none",
    ) -> Report:
        """Scores predictions; the report does not depend on their order (with `compat="carried"` it does).

        Args:
            predictions: At least one, one a question.
            blind: Answers to the same questions without the image, as a baseline.
            compat: Quirks of the official script to reproduce.

        Raises:
            ValueError: There are none, a question id occurs twice, a question cannot be scored, or `blind` lacks one.
        """
        if not predictions:
            raise ValueError("found no predictions; expected at least one; check that the test set is not empty")
        _check_ids(predictions)
        questions = [prediction.question for prediction in predictions]
        truths = [_truth(prediction) for prediction in predictions]
        scores = [score_against(p.question, truth, p.text) for p, truth in zip(predictions, truths, strict=True)]
        scores = official(questions, scores, compat)
        constants = best_constants(questions, truths)
        blind_right = None if blind is None else _blind(predictions, truths, blind, compat)
        order = sorted(range(len(questions)), key=[question.id for question in questions].__getitem__)
        questions, scores = [questions[number] for number in order], [scores[number] for number in order]
        constant = [constants.right[number] for number in order]
        blind_of = None if blind_right is None else tuple(blind_right[number] for number in order)
        groups, categories = rows_of(questions, scores, constant_right=constant, blind_right=blind_of)
        right = [score.correct for score in scores]
        return cls(
            predictions=tuple(predictions[number] for number in order),
            scores=tuple(scores),
            constant_right=tuple(constant),
            blind_right=blind_of,
            constants=constants.by_template,
            groups=groups,
            categories=categories,
            paired_test=mcnemar_exact(right, constant),
            difference=cluster_bootstrap(
                [float(a) - float(b) for a, b in zip(right, constant, strict=True)],
                [question.image_id for question in questions],
            ),
            blind_test=None if blind_of is None else mcnemar_exact(right, blind_of),
            compat=compat,
        )

    def row(self, name: str) -> Row:
        """The row of a group, a category, of `qualitative`, `quantitative` or `overall`.

        Raises:
            ValueError: The report has no such row.
        """
        rows = (*self.groups, *self.categories)
        for row in rows:
            if row.name == name:
                return row
        raise ValueError(f"found no row {name!r}; expected one of {', '.join(row.name for row in rows)}")

    def table(self, title: str = "Answers") -> Table:
        """The report for a terminal."""
        return table_of(self.groups, title=title, caption=self._verdict())

    def summary(self) -> dict[str, Json]:
        """Everything in the report but the predictions, in plain JSON types."""
        summary: dict[str, Json] = {
            "scorer_version": SCORER_VERSION,
            "compat": self.compat,
            "predictions_sha256": hashlib.sha256(self._lines.encode()).hexdigest(),
            "n": len(self.predictions),
            "num_images": len({prediction.question.image_id for prediction in self.predictions}),
            "rows": {row.name: row.json() for row in self.groups},
            "categories": {row.name: row.json() for row in self.categories},
            "paired_test": {
                "method": "exact McNemar, model against best constant, all questions",
                "only_model_right": self.paired_test.only_first,
                "only_best_constant_right": self.paired_test.only_second,
                "p_value": self.paired_test.p_value,
                "difference": self.row("overall").accuracy - self.row("overall").best_constant,
                "difference_interval_95": [self.difference.low, self.difference.high],
            },
            "best_constants": {
                name: {"answer": constant.answer, "n": constant.n, "correct": constant.correct}
                for name, constant in sorted(self.constants.items())
            },
        }
        if self.blind_test is not None:
            summary["blind_test"] = {
                "method": "exact McNemar, model against its answers without the image, all questions",
                "only_model_right": self.blind_test.only_first,
                "only_blind_right": self.blind_test.only_second,
                "p_value": self.blind_test.p_value,
            }
        return summary

    def score_rows(self) -> list[dict[str, Json]]:
        """The rows of `scores.jsonl`, in the order of the question ids."""
        return [
            score_row(prediction, score) | {"best_constant_correct": constant}
            for prediction, score, constant in zip(self.predictions, self.scores, self.constant_right, strict=True)
        ]

    def write(self, directory: str | Path) -> tuple[Path, Path, Path]:
        """Writes `predictions.jsonl`, `scores.jsonl` and `summary.json` (equal predictions, equal bytes)."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / "predictions.jsonl", folder / "scores.jsonl", folder / "summary.json"
        paths[0].write_text(self._lines, encoding="utf-8", newline="\n")
        write_rows(paths[1], self.score_rows())
        write_summary(paths[2], self.summary())
        return paths

    @cached_property
    def _lines(self) -> str:
        return "".join(_line(prediction.row()) for prediction in self.predictions)

    def _verdict(self) -> str:
        overall, test = self.row("overall"), self.paired_test
        lines = [
            "error: mean relative error of lengths, mean degrees of directions, over what could be read",
            "* oracle: the best constant answer to each question template, chosen on this very set",
            f"model {100 * overall.accuracy:.1f}, best constant {100 * overall.best_constant:.1f}; alone right on "
            f"{test.only_first} and {test.only_second}: exact McNemar p = {test.p_value:.3g}",
        ]
        if (blind := self.blind_test) is not None and overall.blind is not None:
            lines.append(
                f"model {100 * overall.accuracy:.1f}, blind {100 * overall.blind:.1f}; alone right on "
                f"{blind.only_first} and {blind.only_second}: exact McNemar p = {blind.p_value:.3g}"
            )
        if self.compat != "none":
            lines.append(f"with the official script's quirks: compat={self.compat}")
        return "\n".join(lines)


def score_row(prediction: Prediction, score: Score) -> dict[str, Json]:
    """One row of `scores.jsonl`: the parsed values in metres (`unit` "m"), hours ("h"), or as text."""
    question = prediction.question
    model: dict[str, Json] = {"model": prediction.model} if prediction.model else {}
    return model | {
        "id": question.id,
        "outcome": score.outcome,
        "correct": score.correct,
        "ground_truth": score.ground_truth,
        "prediction": score.prediction,
        "unit": UNITS.get(asked(question).kind),
        "error": score.error,
        "qa_category": question.qa_category,
        "scorer_version": SCORER_VERSION,
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, Json]]) -> None:
    """Write JSON Lines; equal rows, equal bytes."""
    path.write_text("".join(_line(row) for row in rows), encoding="utf-8", newline="\n")


def write_summary(path: Path, summary: Mapping[str, Json]) -> None:
    """Write one JSON object for people and programs; an equal one, equal bytes."""
    text = json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _line(row: Mapping[str, object]) -> str:
    return _LINE.encode(row) + "\n"


def _truth(prediction: Prediction) -> Value:
    try:
        return parse_truth(prediction.question)
    except ValueError as error:
        raise ValueError(f"{prediction.where}: {error}" if prediction.where else str(error)) from error


def _check_ids(predictions: Sequence[Prediction]) -> None:
    seen: set[str] = set()
    for prediction in predictions:
        if prediction.question.id in seen:
            raise ValueError(
                f"found question id {prediction.question.id!r} twice; expected one prediction a question; "
                "give every row its own id, and report one model at a time"
            )
        seen.add(prediction.question.id)


def _blind(
    predictions: Sequence[Prediction], truths: Sequence[Value], blind: Sequence[Prediction], compat: Compat
) -> list[bool]:
    """Whether the blind answer to each question is right."""
    by_id = {prediction.question.id: prediction for prediction in blind}
    found = []
    for prediction in predictions:
        own, other = prediction.question, by_id.get(prediction.question.id)
        if other is None or (other.question.question, other.question.answer) != (own.question, own.answer):
            what = "no blind answer" if other is None else "a blind answer to another question or ground truth"
            raise ValueError(
                f"question {own.id!r}: found {what}; expected one to each question that is scored; let the model "
                "answer the same benchmark without its image"
            )
        found.append(other)
    scores = [score_against(p.question, truth, p.text) for p, truth in zip(found, truths, strict=True)]
    return [score.correct for score in official([p.question for p in found], scores, compat)]

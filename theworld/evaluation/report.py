"""Predictions → the table that a reader sees, the summary that a program reads, the files that re-score to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rich.table import Table

from theworld.evaluation.answers import SCORER_VERSION, Outcome, score_answer
from theworld.evaluation.baselines import BestConstant, best_constant, chance, constant_outcomes
from theworld.evaluation.statistics import Interval, PairedTest, cluster_bootstrap, mcnemar_exact, wilson_interval
from theworld.types import Question

Json = str | float | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True)
class Prediction:
    """A question and the text that a model answered."""

    question: Question
    text: str


@dataclass(frozen=True)
class Row:
    """One line of the table: a category, a type, or everything.

    Attributes:
        name: Category, `qualitative`, `quantitative` or `overall`.
        n: Questions.
        correct: Right answers.
        unparsed: Answers that could not be read (they count as wrong).
        interval: 95 % interval of the accuracy: the union of Wilson's (honest at 0 and 1) and a bootstrap over images
            (honest about several questions of one image).
        best_constant: Accuracy of the best constant answers, an oracle chosen on this set.
        chance: Expected accuracy of guessing; None where a question in the row is a length.
        mean_relative_error: Mean of |prediction − truth| ÷ truth over the lengths that could be read; None without any.
    """

    name: str
    n: int
    correct: int
    unparsed: int
    interval: Interval
    best_constant: float
    chance: float | None
    mean_relative_error: float | None

    @property
    def accuracy(self) -> float:
        """Share of right answers, the unparsed ones included in the denominator."""
        return self.correct / self.n


@dataclass(frozen=True)
class Report:
    """Scored predictions of one model on one set.

    Attributes:
        predictions: In the order of their question ids.
        outcomes: One a prediction.
        constant_right: Whether the best constant of its template answers the question right, one a prediction.
        constants: Best constant of every template.
        rows: Categories, then qualitative, quantitative (each where it has questions) and overall.
        paired_test: Exact McNemar test of the model (first) against the best constant (second), over all questions. It
            treats questions as independent; `difference` does not.
        difference: 95 % interval of accuracy minus best constant, from a bootstrap over images.
    """

    predictions: tuple[Prediction, ...]
    outcomes: tuple[Outcome, ...]
    constant_right: tuple[bool, ...]
    constants: dict[str, BestConstant]
    rows: tuple[Row, ...]
    paired_test: PairedTest
    difference: Interval

    @classmethod
    def from_predictions(cls, predictions: Sequence[Prediction]) -> Report:
        """Scores predictions; the report does not depend on their order.

        Raises:
            ValueError: There are none, a question id occurs twice, or a question cannot be scored.
        """
        if not predictions:
            raise ValueError("found no predictions; expected at least one; check that the test set is not empty")
        ordered = sorted(predictions, key=lambda prediction: prediction.question.id)
        for before, after in zip(ordered, ordered[1:], strict=False):
            if before.question.id == after.question.id:
                raise ValueError(
                    f"found question id {after.question.id!r} twice; expected one prediction a question; "
                    "give every row its own id, and report one model at a time"
                )
        questions = [prediction.question for prediction in ordered]
        outcomes = [score_answer(prediction.question, prediction.text) for prediction in ordered]
        constant_right = constant_outcomes(questions)
        right = [outcome.correct for outcome in outcomes]
        return cls(
            predictions=tuple(ordered),
            outcomes=tuple(outcomes),
            constant_right=tuple(constant_right),
            constants=best_constant(questions),
            rows=_rows(questions, outcomes, constant_right),
            paired_test=mcnemar_exact(right, constant_right),
            difference=cluster_bootstrap(
                [float(a) - float(b) for a, b in zip(right, constant_right, strict=True)],
                [q.image_id for q in questions],
            ),
        )

    def row(self, name: str) -> Row:
        """The row of a category, of `qualitative`, `quantitative` or `overall`.

        Raises:
            ValueError: The report has no such row.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise ValueError(f"found no row {name!r}; expected one of {', '.join(row.name for row in self.rows)}")

    def table(self) -> Table:
        """The report for a terminal."""
        table = Table(title="Answers", caption=self._verdict(), caption_justify="left")
        table.add_column("category")
        for heading in ("n", "accuracy", "95 % interval", "best constant*", "chance", "unparsed"):
            table.add_column(heading, justify="right")
        categories = {prediction.question.qa_category for prediction in self.predictions}
        for row, following in zip(self.rows, (*self.rows[1:], None), strict=True):
            table.add_row(
                row.name,
                str(row.n),
                _percent(row.accuracy),
                f"{_percent(row.interval.low)} to {_percent(row.interval.high)}",
                _percent(row.best_constant),
                "-" if row.chance is None else _percent(row.chance),
                str(row.unparsed),
                style="" if row.name in categories else "bold",
                end_section=following is not None and row.name in categories and following.name not in categories,
            )
        return table

    def summary(self) -> dict[str, Json]:
        """Everything in the report but the predictions, in plain JSON types."""
        return {
            "scorer_version": SCORER_VERSION,
            "predictions_sha256": hashlib.sha256(self._lines().encode()).hexdigest(),
            "n": len(self.predictions),
            "num_images": len({prediction.question.image_id for prediction in self.predictions}),
            "rows": {row.name: _row_json(row) for row in self.rows},
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

    def write(self, directory: str | Path) -> tuple[Path, Path]:
        """Writes `predictions.jsonl` and `summary.json` (equal predictions, equal bytes); returns their paths."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        predictions, summary = folder / "predictions.jsonl", folder / "summary.json"
        predictions.write_text(self._lines(), encoding="utf-8", newline="\n")
        text = json.dumps(self.summary(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        summary.write_text(text + "\n", encoding="utf-8", newline="\n")
        return predictions, summary

    def _lines(self) -> str:
        rows = zip(self.predictions, self.outcomes, self.constant_right, strict=True)
        return "".join(
            json.dumps(
                {
                    **asdict(prediction.question),
                    "prediction": prediction.text,
                    "outcome": asdict(outcome),
                    "best_constant_correct": constant_right,
                    "scorer_version": SCORER_VERSION,
                },
                sort_keys=True,
                ensure_ascii=True,
                allow_nan=False,
            )
            + "\n"
            for prediction, outcome, constant_right in rows
        )

    def _verdict(self) -> str:
        overall, test = self.row("overall"), self.paired_test
        return (
            "* oracle: the best constant answer to each question template, chosen on this very set\n"
            f"model {_percent(overall.accuracy)}, best constant {_percent(overall.best_constant)}; alone right on "
            f"{test.only_first} and {test.only_second}: exact McNemar p = {test.p_value:.3g}"
        )


def read_predictions(path: str | Path) -> list[Prediction]:
    """Predictions that `Report.write` wrote; their recorded outcomes are left out, so that they are scored anew.

    Raises:
        ValueError: A line is not a prediction; the message names the file and the line.
    """
    names = [field.name for field in fields(Question)]
    found = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: found no JSON ({error}); expected one prediction a line"
            ) from error
        missing = [n for n in (*names, "prediction") if not isinstance(row, dict) or not isinstance(row.get(n), str)]
        if missing:
            raise ValueError(
                f"{path}, line {number}: found no text for {', '.join(missing)}; "
                "expected the keys that Report.write writes; write the file with it"
            )
        found.append(Prediction(Question(**{name: row[name] for name in names}), row["prediction"]))
    return found


def _rows(questions: list[Question], outcomes: list[Outcome], constant_right: list[bool]) -> tuple[Row, ...]:
    groups: dict[str, list[int]] = {}
    for qa_type in ("qualitative", "quantitative"):
        of_type = [i for i, question in enumerate(questions) if question.qa_type == qa_type]
        for category in sorted({questions[i].qa_category for i in of_type}):
            groups[category] = [i for i in of_type if questions[i].qa_category == category]
    for qa_type in ("qualitative", "quantitative"):
        groups[qa_type] = [i for i, question in enumerate(questions) if question.qa_type == qa_type]
    groups["overall"] = list(range(len(questions)))
    return tuple(
        _row(
            name,
            [questions[i] for i in members],
            [outcomes[i] for i in members],
            [constant_right[i] for i in members],
        )
        for name, members in groups.items()
        if members
    )


def _row(name: str, questions: list[Question], outcomes: list[Outcome], constant_right: list[bool]) -> Row:
    n = len(questions)
    correct = sum(outcome.correct for outcome in outcomes)
    wilson = wilson_interval(correct, n)
    by_image = cluster_bootstrap([float(o.correct) for o in outcomes], [question.image_id for question in questions])
    guesses = [guess for question in questions if (guess := chance(question)) is not None]
    errors = [outcome.relative_error for outcome in outcomes if outcome.relative_error is not None]
    return Row(
        name=name,
        n=n,
        correct=correct,
        unparsed=sum(not outcome.parsed for outcome in outcomes),
        interval=Interval(min(wilson.low, by_image.low), max(wilson.high, by_image.high)),
        best_constant=sum(constant_right) / n,
        chance=sum(guesses) / n if len(guesses) == n else None,
        mean_relative_error=sum(errors) / len(errors) if errors else None,
    )


def _row_json(row: Row) -> Json:
    return {
        "n": row.n,
        "correct": row.correct,
        "accuracy": row.accuracy,
        "interval_95": [row.interval.low, row.interval.high],
        "best_constant": row.best_constant,
        "chance": row.chance,
        "unparsed": row.unparsed,
        "mean_relative_error": row.mean_relative_error,
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"

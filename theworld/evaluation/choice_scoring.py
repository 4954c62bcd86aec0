"""Predictions of multiple-choice and true/false benchmarks → their report; one path for `evaluate` and for `score`."""

from __future__ import annotations

from collections.abc import Sequence

from theworld.evaluation.benchmarks.benchmark import SCORING
from theworld.evaluation.choice_report import ChoiceAnswer, ChoiceReport, Json
from theworld.evaluation.choices import CHOICE_SCORER_VERSION, ChoiceOutcome
from theworld.evaluation.predictions import Prediction


def choice_benchmark(predictions: Sequence[Prediction]) -> str | None:
    """The multiple-choice or true/false benchmark that all predictions are of; None: they are free answers.

    Raises:
        ValueError: There are such predictions and others, which no table could hold together.
    """
    first: dict[str, Prediction] = {}
    for prediction in predictions:
        first.setdefault(prediction.benchmark, prediction)
    of_choices = [name for name in first if SCORING.get(name, "spatial") != "spatial"]
    if not of_choices:
        return None
    if len(first) > 1:
        found = ", ".join(f"{name or 'no benchmark'} ({prediction.where})" for name, prediction in first.items())
        raise ValueError(
            f"found answers to several benchmarks: {found}; expected one, as they are scored by different rules; put "
            "the rows of each into a file of its own"
        )
    return of_choices[0]


def choice_report(benchmark: str, predictions: Sequence[Prediction]) -> ChoiceReport:
    """Scores predictions by the benchmark's rules.

    Args:
        benchmark: One that `choice_benchmark` gives.
        predictions: Of this benchmark and of one model, at least one.

    Raises:
        ValueError: A row has no choices or a truth that is none of them; the message says which.
    """
    return ChoiceReport.from_answers(benchmark, list(map(_answer, predictions)), scoring=SCORING[benchmark])


def choice_summary(report: ChoiceReport) -> dict[str, Json]:
    """What `summary.json` says of a report, but for the settings of the run that answered."""
    return {"benchmark": report.benchmark, "report": report.summary()}


def choice_score_row(prediction: Prediction, outcome: ChoiceOutcome) -> dict[str, Json]:
    """One row of `scores.jsonl`: truth and answer as letters, or as `yes` and `no`."""
    model: dict[str, Json] = {"model": prediction.model} if prediction.model else {}
    return model | {
        "id": prediction.question.id,
        "outcome": "correct" if outcome.correct else "wrong" if outcome.parsed else "unparsed",
        "correct": outcome.correct,
        "ground_truth": outcome.truth,
        "prediction": outcome.prediction,
        "qa_category": prediction.question.qa_category,
        "scorer_version": f"choices {CHOICE_SCORER_VERSION}",
    }


def _answer(prediction: Prediction) -> ChoiceAnswer:
    question = prediction.question
    if len(prediction.choices) < 2:
        raise ValueError(
            f"{prediction.where} (id {question.id!r}): found {len(prediction.choices)} choices, expected `choices`, a "
            f"list of at least two texts, as {prediction.benchmark} asks; let `theworld evaluate` write the row"
        )
    return ChoiceAnswer(
        id=question.id,
        category=question.qa_category,
        group=prediction.group or question.qa_category,
        question=question.question,
        choices=prediction.choices,
        truth=question.answer,
        text=prediction.text,
    )

"""The deterministic scorer: a question, its ground truth and a free-text answer → right, wrong or unparsed.

The rules are SpatialRGPT-Bench's official ones (distances within ±25 % with both ends included, clock directions within
one hour around the dial), without its language-model judge: the same text always gets the same verdict. An answer that
states nothing the question asked for is unparsed; it counts as not correct, and is reported apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from theworld.evaluation.quantities import hours_apart, parse_hour, parse_length, within_quarter
from theworld.evaluation.relations import is_relation, parse_choice, parse_stance
from theworld.evaluation.sentences import clean, regions
from theworld.types import Question

SCORER_VERSION = "1"
"""Changes with any rule that can change a verdict; scores of different versions are not comparable."""

Value = str | Fraction
"""A canonical answer: `yes`/`no`, `Region [n]`, exact metres, or exact hours."""

_METRIC = re.compile(r"(?:distance|horizontal_distance|vertical_distance|width|height)_data")


@dataclass(frozen=True)
class Outcome:
    """What became of one answer.

    Attributes:
        correct: Whether the answer is right; False when it could not be read.
        parsed: Whether it could be read.
        truth: Ground truth: `yes`/`no`, `Region [n]`, metres, or clock hours.
        prediction: The answer in the same form; None when it could not be read.
        relative_error: |prediction − truth| ÷ truth of a distance, width or height; None for everything else, for what
            could not be read and for a truth of 0.
    """

    correct: bool
    parsed: bool
    truth: str | float | None
    prediction: str | float | None
    relative_error: float | None


def score_answer(question: Question, prediction: str) -> Outcome:
    """Scores one free-text answer.

    Raises:
        ValueError: The question's category is unknown, or its ground truth cannot be read.
    """
    kind = question_kind(question)
    truth = parse_truth(question)
    answer = parse_answer(question, prediction)
    error = None
    if kind == "distance" and isinstance(truth, Fraction) and isinstance(answer, Fraction) and truth:
        error = float(abs(answer - truth) / truth)
    return Outcome(
        correct=answer is not None and is_correct(question, answer, truth),
        parsed=answer is not None,
        truth=_plain(truth),
        prediction=_plain(answer),
        relative_error=error,
    )


def question_kind(question: Question) -> str:
    """`yes_no`, `choice`, `distance` or `direction`, from the category.

    Raises:
        ValueError: The category is none of SpatialRGPT-Bench's, or contradicts the question's type.
    """
    category = question.qa_category
    relation, _, form = category.rpartition("_")
    if category == "direction":
        kind = "direction"
    elif _METRIC.fullmatch(category):
        kind = "distance"
    elif is_relation(relation) and form in ("predicate", "choice"):
        kind = "yes_no" if form == "predicate" else "choice"
    else:
        raise ValueError(
            f"row {question.id!r}: found category {category!r}; expected <relation>_predicate, <relation>_choice, "
            "<measure>_data or direction as in SpatialRGPT-Bench; correct the row's qa_info"
        )
    expected = "qualitative" if kind in ("yes_no", "choice") else "quantitative"
    if question.qa_type != expected:
        raise ValueError(
            f"row {question.id!r}: found type {question.qa_type!r} with category {category!r}; expected {expected!r}; "
            "correct the row's qa_info"
        )
    return kind


def parse_truth(question: Question) -> Value:
    """The ground truth in canonical form.

    Raises:
        ValueError: It cannot be read: a broken row must not pass for a wrong answer.
    """
    truth = parse_answer(question, question.answer)
    if truth is None:
        raise ValueError(
            f"row {question.id!r} ({question.qa_category}): the ground truth {question.answer!r} does not parse as the "
            f"answer to {question.question!r}; correct the row or exclude it"
        )
    return truth


def parse_answer(question: Question, text: str) -> Value | None:
    """An answer in canonical form; None where it states nothing that the question asked for."""
    kind = question_kind(question)
    if kind == "yes_no":
        return parse_stance(text, category=question.qa_category, question=question.question)
    if kind == "choice":
        region = parse_choice(text, category=question.qa_category, question=question.question)
        return None if region is None else region_name(region)
    if kind == "distance":
        return parse_length(text, category=question.qa_category, question=question.question)
    return parse_hour(text)


def is_correct(question: Question, answer: Value, truth: Value) -> bool:
    """Whether a canonical answer is right for a canonical truth."""
    if isinstance(answer, Fraction) and isinstance(truth, Fraction):
        if question_kind(question) == "direction":
            return hours_apart(answer, truth) <= 1
        return within_quarter(answer, truth)
    return answer == truth


def offered_regions(question: Question) -> list[str]:
    """Names of the regions in the question, in order of first mention."""
    return [region_name(region) for region in regions(clean(question.question))]


def region_name(region: int) -> str:
    """How questions and answers write a region."""
    return f"Region [{region}]"


def _plain(value: Value | None) -> str | float | None:
    return float(value) if isinstance(value, Fraction) else value

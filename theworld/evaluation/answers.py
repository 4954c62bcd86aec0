"""The deterministic scorer: a question, its ground truth and a free-text answer → one of seven outcomes.

The rules are SpatialRGPT-Bench's official ones (distances within ±25 % with both ends included, clock directions within
one hour around the dial), without its language-model judge: the same text always gets the same verdict. An answer that
states nothing the question asked for counts as not correct, and is reported apart, by the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from theworld.evaluation.asked import Asked, asked, region_name
from theworld.evaluation.hours import hours_apart, parse_hour
from theworld.evaluation.outcomes import Outcome, unread
from theworld.evaluation.quantities import parse_length, shares, within_quarter
from theworld.evaluation.relations import parse_choice, parse_stance
from theworld.evaluation.sentences import clean, readings
from theworld.types import Question

SCORER_VERSION = "2"
"""Changes with any rule that can change a verdict; scores of different versions are not comparable."""

Value = str | Fraction
"""A canonical answer: `yes`/`no`, `Region [n]` or `both the same`, exact metres, or exact hours."""


@dataclass(frozen=True)
class Score:
    """What became of one answer.

    Attributes:
        outcome: One of `outcomes.OUTCOMES`.
        ground_truth: `yes`/`no`, `Region [n]`, metres, or clock hours.
        prediction: The answer in the same form; None when it states nothing to score.
        error: |prediction − truth| ÷ truth of a length, hours around the dial of a direction; None for everything else,
            for what states nothing and for a length whose truth is 0.
    """

    outcome: Outcome
    ground_truth: str | float
    prediction: str | float | None
    error: float | None

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""
        return self.outcome == "correct"

    @property
    def parsed(self) -> bool:
        """Whether the answer states something to score."""
        return self.prediction is not None


def score_answer(question: Question, prediction: str) -> Score:
    """Scores one free-text answer.

    Raises:
        ValueError: The question's category is unknown, or its ground truth cannot be read.
    """
    return score_against(question, parse_truth(question), prediction)


def score_against(question: Question, truth: Value, prediction: str) -> Score:
    """Scores one free-text answer against a ground truth that is already in canonical form."""
    of = asked(question)
    text = clean(prediction)
    answer = _read(of, text)
    if answer is None:
        return Score(unread(text, of.kind), _plain(truth), None, None)
    right, error = _compare(of, answer, truth)
    return Score("correct" if right else "incorrect", _plain(truth), _plain(answer), error)


def parse_truth(question: Question) -> Value:
    """The ground truth in canonical form.

    Raises:
        ValueError: It cannot be read: a broken row must not pass for a wrong answer.
    """
    truth = _read_truth(asked(question), question.answer)
    if truth is None:
        raise ValueError(
            f"row {question.id!r} ({question.qa_category}): the ground truth {question.answer!r} does not parse as the "
            f"answer to {question.question!r}; correct the row or exclude it"
        )
    return truth


def parse_answer(question: Question, text: str) -> Value | None:
    """An answer in canonical form; None where it states nothing that the question asked for."""
    return _read(asked(question), clean(text))


def is_correct(of: Asked, answer: Value, truth: Value) -> bool:
    """Whether a canonical answer to what was asked is right for a canonical truth."""
    return _compare(of, answer, truth)[0]


def offered_regions(question: Question) -> list[str]:
    """Names of the regions in the question, in order of first mention."""
    return [region_name(region) for region in asked(question).regions]


def question_kind(question: Question) -> str:
    """`yes_no`, `choice`, `distance` or `direction`, from the category.

    Raises:
        ValueError: The category is none of SpatialRGPT-Bench's, or contradicts the question's type.
    """
    return asked(question).kind


def _read(of: Asked, text: str) -> Value | None:
    if of.kind == "yes_no":
        return parse_stance(readings(text), relation=of.relation, asked=of.regions)
    if of.kind == "choice":
        chosen = parse_choice(readings(text), relation=of.relation, offered=of.regions)
        return region_name(chosen) if isinstance(chosen, int) else chosen
    found = readings(text, consequents=True)
    if of.kind == "distance":
        return parse_length(found, category=of.category, asked=of.regions)
    return parse_hour(found, asked=of.regions)


@lru_cache(maxsize=1 << 14)
def _read_truth(of: Asked, text: str) -> Value | None:
    """A benchmark's ground truths are read once, for however many models and arms; answers are never kept."""
    return _read(of, clean(text))


def _compare(of: Asked, answer: Value, truth: Value) -> tuple[bool, float | None]:
    """Whether the answer is right, and its error."""
    if isinstance(answer, str) or isinstance(truth, str):
        return answer == truth, None
    if of.kind == "direction":
        apart = hours_apart(answer, truth)
        return apart <= 1, float(apart)
    share, whole = shares(answer, truth)
    return within_quarter(answer, truth), abs(share - whole) / whole if whole else None


def _plain(value: Value) -> str | float:
    return value if isinstance(value, str) else value.numerator / value.denominator

"""Scored answers → the rows of a table: the paper's groups, the two types, everything, and each category."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from theworld.evaluation.answers import Score
from theworld.evaluation.asked import asked
from theworld.evaluation.baselines import chance
from theworld.evaluation.outcomes import OUTCOMES, Outcome
from theworld.evaluation.statistics import Interval, cluster_bootstrap, wilson_interval
from theworld.types import Question

Json = str | float | None | list["Json"] | dict[str, "Json"]

GROUPS: dict[str, tuple[str, ...]] = {
    "below/above": ("below_predicate", "below_choice", "above_predicate", "above_choice"),
    "left/right": ("left_predicate", "left_choice", "right_predicate", "right_choice"),
    "big/small": ("big_predicate", "big_choice", "small_predicate", "small_choice"),
    "tall/short": ("tall_predicate", "tall_choice", "short_predicate", "short_choice"),
    "wide/thin": ("wide_predicate", "wide_choice", "thin_predicate", "thin_choice"),
    "behind/front": ("behind_predicate", "behind_choice", "front_predicate", "front_choice"),
    "direct distance": ("distance_data",),
    "horizontal distance": ("horizontal_distance_data",),
    "vertical distance": ("vertical_distance_data",),
    "width": ("width_data",),
    "height": ("height_data",),
    "direction": ("direction",),
}
"""The groups of the paper's two tables, in their order, and the categories of each."""

GROUP_OF = {category: group for group, categories in GROUPS.items() for category in categories}
"""The group of every category."""

TYPES = ("qualitative", "quantitative")
"""The two types of questions; each has its average in the paper."""

DEGREES_AN_HOUR = 30


@dataclass(frozen=True)
class Row:
    """One line of the table: a group, a category, a type, or everything.

    Attributes:
        name: Group, category, `qualitative`, `quantitative` or `overall`.
        n: Questions.
        outcomes: How many answers had each outcome; all but `correct` count as not correct.
        interval: 95 % interval of the accuracy: the union of Wilson's (honest at 0 and 1) and a bootstrap over images
            (honest about several questions of one image).
        best_constant: Accuracy of the best constant answers, an oracle chosen on this set.
        blind: Accuracy of the model without the image; None where it was not asked.
        chance: Expected accuracy of guessing; None where a question in the row is a length.
        relative_error: Mean of |prediction − truth| ÷ truth over the lengths that could be read; None without any.
        degrees: Mean error of the directions that could be read, around the dial; None without any.
    """

    name: str
    n: int
    outcomes: Mapping[Outcome, int]
    interval: Interval
    best_constant: float
    blind: float | None
    chance: float | None
    relative_error: float | None
    degrees: float | None

    @property
    def correct(self) -> int:
        """Right answers."""
        return self.outcomes["correct"]

    @property
    def unread(self) -> int:
        """Answers that state nothing to score, for whatever reason."""
        return self.n - self.outcomes["correct"] - self.outcomes["incorrect"]

    @property
    def accuracy(self) -> float:
        """Share of right answers, those that state nothing included in the denominator."""
        return self.correct / self.n

    def json(self) -> Json:
        """The row in plain JSON types."""
        return {
            "n": self.n,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "interval_95": [self.interval.low, self.interval.high],
            "outcomes": {outcome: self.outcomes[outcome] for outcome in OUTCOMES},
            "best_constant": self.best_constant,
            "blind": self.blind,
            "chance": self.chance,
            "mean_relative_error": self.relative_error,
            "mean_degrees": self.degrees,
        }


def rows_of(
    questions: Sequence[Question],
    scores: Sequence[Score],
    *,
    constant_right: Sequence[bool],
    blind_right: Sequence[bool] | None,
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The rows of the groups, the types and everything; and those of the categories, qualitative ones first.

    Args:
        questions: At least one.
        scores: One a question.
        constant_right: Whether the best constant of its template answers each question right.
        blind_right: Whether the model without the image does; None where it was not asked.
    """
    columns = _Columns.of(questions, scores, constant_right, blind_right)
    by_category: dict[str, list[int]] = {}
    by_type: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        by_category.setdefault(question.qa_category, []).append(number)
        by_type.setdefault(question.qa_type, []).append(number)
    of_group = {
        group: [number for category in categories for number in by_category.get(category, ())]
        for group, categories in GROUPS.items()
    }
    of_type = {type: by_type.get(type, []) for type in TYPES}
    of_category = {category: by_category.get(category, []) for category in GROUP_OF}
    return _rows(columns, of_group | of_type | {"overall": list(range(len(questions)))}), _rows(columns, of_category)


def mean(values: Iterable[float]) -> float | None:
    """Mean of the values; None without any."""
    found = list(values)
    return sum(found) / len(found) if found else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Columns:
    """What rows are made of, taken from the objects once: every question is in four rows.

    Attributes:
        outcomes: int64[n], places in `OUTCOMES`.
        images: int64[n], equal numbers for questions of one image.
        constant_right: bool[n].
        blind_right: bool[n]; None where the model was not asked without the image.
        guesses: float64[n], expected accuracies of guessing; NaN for a length.
        lengths: float64[n], relative errors of lengths; NaN where there is none, as in `hours`.
        hours: float64[n], errors of directions.
    """

    outcomes: np.ndarray
    images: np.ndarray
    constant_right: np.ndarray
    blind_right: np.ndarray | None
    guesses: np.ndarray
    lengths: np.ndarray
    hours: np.ndarray

    @classmethod
    def of(
        cls,
        questions: Sequence[Question],
        scores: Sequence[Score],
        constant_right: Sequence[bool],
        blind_right: Sequence[bool] | None,
    ) -> _Columns:
        kinds = np.array([asked(question).kind for question in questions])
        errors = _floats([score.error for score in scores])
        places = {outcome: place for place, outcome in enumerate(OUTCOMES)}
        return cls(
            outcomes=np.array([places[score.outcome] for score in scores]),
            images=np.unique([question.image_id for question in questions], return_inverse=True)[1],
            constant_right=np.array(constant_right),
            blind_right=None if blind_right is None else np.array(blind_right),
            guesses=_floats(list(map(chance, questions))),
            lengths=np.where(kinds == "distance", errors, np.nan),
            hours=np.where(kinds == "direction", errors, np.nan),
        )


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array(values, dtype=np.float64)  # makes NaN of None


def _rows(columns: _Columns, members: Mapping[str, Sequence[int]]) -> tuple[Row, ...]:
    return tuple(_row(name, columns, np.array(numbers)) for name, numbers in members.items() if numbers)


def _row(name: str, columns: _Columns, members: np.ndarray) -> Row:
    n = len(members)
    outcomes = columns.outcomes[members]
    counts = dict(zip(OUTCOMES, np.bincount(outcomes, minlength=len(OUTCOMES)).tolist(), strict=True))
    wilson = wilson_interval(counts["correct"], n)
    by_image = cluster_bootstrap(outcomes == OUTCOMES.index("correct"), columns.images[members])
    guesses = columns.guesses[members].tolist()
    return Row(
        name=name,
        n=n,
        outcomes=counts,
        interval=Interval(min(wilson.low, by_image.low), max(wilson.high, by_image.high)),
        best_constant=_share(columns.constant_right[members]),
        blind=None if columns.blind_right is None else _share(columns.blind_right[members]),
        chance=None if np.isnan(guesses).any() else sum(guesses) / n,
        relative_error=mean(_given(columns.lengths[members])),
        degrees=mean(_given(DEGREES_AN_HOUR * columns.hours[members])),
    )


def _share(right: np.ndarray) -> float:
    return int(right.sum()) / len(right)


def _given(values: np.ndarray) -> list[float]:
    """Without NaN; a list, whose sum is taken in its order and so is the same everywhere."""
    return values[~np.isnan(values)].tolist()

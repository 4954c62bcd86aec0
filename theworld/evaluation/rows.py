"""Scored answers → the rows of a table: the paper's groups, the two types, everything, and each category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from theworld.evaluation.answers import Score
from theworld.evaluation.asked import asked
from theworld.evaluation.baselines import chance
from theworld.evaluation.outcomes import OUTCOMES, Outcome
from theworld.evaluation.predictions import Prediction
from theworld.evaluation.statistics import Interval, cluster_bootstrap, wilson_interval

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
class Scored:
    """One scored prediction beside its baselines."""

    prediction: Prediction
    score: Score
    constant_right: bool
    blind_right: bool | None


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


def rows_of(scored: Sequence[Scored]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The rows of the groups, the types and everything; and those of the categories, qualitative ones first."""
    by_category: dict[str, list[Scored]] = {}
    for one in scored:
        by_category.setdefault(one.prediction.question.qa_category, []).append(one)
    of_group = {
        group: [one for category in categories for one in by_category.get(category, ())]
        for group, categories in GROUPS.items()
    }
    of_type = {type: [one for one in scored if one.prediction.question.qa_type == type] for type in TYPES}
    of_category = {category: by_category.get(category, []) for category in GROUP_OF}
    return _rows(of_group | of_type | {"overall": list(scored)}), _rows(of_category)


def mean(values: Iterable[float]) -> float | None:
    """Mean of the values; None without any."""
    found = list(values)
    return sum(found) / len(found) if found else None


def _rows(members: Mapping[str, Sequence[Scored]]) -> tuple[Row, ...]:
    return tuple(_row(name, scored) for name, scored in members.items() if scored)


def _row(name: str, scored: Sequence[Scored]) -> Row:
    n = len(scored)
    counts = Counter(one.score.outcome for one in scored)
    wilson = wilson_interval(counts["correct"], n)
    by_image = cluster_bootstrap(
        [float(one.score.correct) for one in scored], [one.prediction.question.image_id for one in scored]
    )
    guesses = [guess for one in scored if (guess := chance(one.prediction.question)) is not None]
    is_blind = [one.blind_right for one in scored if one.blind_right is not None]
    return Row(
        name=name,
        n=n,
        outcomes={outcome: counts[outcome] for outcome in OUTCOMES},
        interval=Interval(min(wilson.low, by_image.low), max(wilson.high, by_image.high)),
        best_constant=sum(one.constant_right for one in scored) / n,
        blind=sum(is_blind) / n if is_blind else None,
        chance=sum(guesses) / n if len(guesses) == n else None,
        relative_error=mean(_errors(scored, "distance")),
        degrees=mean(DEGREES_AN_HOUR * error for error in _errors(scored, "direction")),
    )


def _errors(scored: Sequence[Scored], kind: str) -> list[float]:
    return [
        one.score.error for one in scored if one.score.error is not None and asked(one.prediction.question).kind == kind
    ]

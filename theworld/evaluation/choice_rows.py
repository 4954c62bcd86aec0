"""Accuracies of multiple-choice and true/false questions, and the numbers that benchmarks' authors make of them.

CV-Bench: ½·((ADE20K + COCO)/2 + Omni3D). BLINK: the mean over its subtasks. VSR: plain accuracy. The interval of a
row is Wilson's, widened where a bootstrap over images is wider. Those of several rows are combined by the
square-and-add method of variance estimates recovery (Zou and Donner, Statistics in Medicine 27, 2008):

    low = Σ wᵢ pᵢ − √ Σ (wᵢ (pᵢ − lowᵢ))²,   high = Σ wᵢ pᵢ + √ Σ (wᵢ (highᵢ − pᵢ))²
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from theworld.evaluation.choices import ChoiceOutcome
from theworld.evaluation.statistics import Interval, cluster_bootstrap, wilson_interval

CV_BENCH_WEIGHTS = {"ADE20K": 0.25, "COCO": 0.25, "Omni3D": 0.5}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One scored answer beside its baselines.

    Attributes:
        outcome: What became of it.
        image: Which image it is about.
        constant_right: Whether the best constant is right.
        blind_right: Whether the model without the image is; None where it was not asked.
        chance: Expected accuracy of guessing.
    """

    outcome: ChoiceOutcome
    image: str
    constant_right: bool
    blind_right: bool | None
    chance: float


@dataclass(frozen=True, kw_only=True)
class ChoiceRow:
    """One line of the table.

    Attributes:
        name: Category, group or `overall`.
        n: Questions.
        correct: Right answers.
        unparsed: Answers that could not be read (they count as wrong).
        interval: 95 % interval of the accuracy: the union of Wilson's and a bootstrap over images.
        best_constant: Accuracy of the constant letter that is right most often in each category, an oracle; of the
            one constant `yes` or `no` for true/false.
        blind: Accuracy of the model without the image; None where it was not asked.
        chance: Expected accuracy of guessing.
        shares: Share of each true answer: letters, or `yes` and `no`.
    """

    name: str
    n: int
    correct: int
    unparsed: int
    interval: Interval
    best_constant: float
    blind: float | None
    chance: float
    shares: dict[str, float]

    @property
    def accuracy(self) -> float:
        """Share of right answers, the unparsed ones included in the denominator."""
        return self.correct / self.n


@dataclass(frozen=True, kw_only=True)
class Official:
    """The number that a benchmark's authors publish.

    Attributes:
        name: What it is.
        value: Between 0 and 1.
        interval: 95 %.
        best_constant: The same number of the best constant answers.
    """

    name: str
    value: float
    interval: Interval
    best_constant: float


def row_of(name: str, scored: Sequence[Scored]) -> ChoiceRow:
    """The line of some answers, at least one."""
    n = len(scored)
    correct = sum(one.outcome.correct for one in scored)
    truths = Counter(one.outcome.truth for one in scored)
    wilson = wilson_interval(correct, n)
    by_image = cluster_bootstrap([float(one.outcome.correct) for one in scored], [one.image for one in scored])
    is_blind = [one.blind_right for one in scored if one.blind_right is not None]
    return ChoiceRow(
        name=name,
        n=n,
        correct=correct,
        unparsed=sum(not one.outcome.parsed for one in scored),
        interval=Interval(min(wilson.low, by_image.low), max(wilson.high, by_image.high)),
        best_constant=sum(one.constant_right for one in scored) / n,
        blind=sum(is_blind) / n if is_blind else None,
        chance=sum(one.chance for one in scored) / n,
        shares={truth: count / n for truth, count in sorted(truths.items())},
    )


def weighted_mean(parts: Sequence[ChoiceRow], weights: Sequence[float]) -> tuple[float, Interval]:
    """Σ wᵢ pᵢ of accuracies, and its 95 % interval from theirs (see the top of this file).

    Args:
        parts: Rows of different questions.
        weights: One a row.
    """
    pairs = list(zip(parts, weights, strict=True))
    mean = sum(weight * row.accuracy for row, weight in pairs)
    below = sum((weight * (row.accuracy - row.interval.low)) ** 2 for row, weight in pairs) ** 0.5
    above = sum((weight * (row.interval.high - row.accuracy)) ** 2 for row, weight in pairs) ** 0.5
    return mean, Interval(max(0.0, mean - below), min(1.0, mean + above))


def official_number(benchmark: str, groups: Sequence[ChoiceRow], overall: ChoiceRow) -> Official | None:
    """The number that the benchmark's authors publish; None where a part of it was not asked.

    Args:
        benchmark: Its name.
        groups: What the number averages over.
        overall: All questions.
    """
    by_name: Mapping[str, ChoiceRow] = {row.name: row for row in groups}
    if benchmark == "cvbench":
        if set(by_name) != set(CV_BENCH_WEIGHTS):
            return None
        name, weights = "CV-Bench accuracy, ½((ADE20K + COCO)/2 + Omni3D)", CV_BENCH_WEIGHTS
    elif benchmark == "blink":
        name, weights = f"mean over {len(by_name)} subtasks", {group: 1 / len(by_name) for group in by_name}
    else:
        return Official(
            name="accuracy",
            value=overall.accuracy,
            interval=overall.interval,
            best_constant=overall.best_constant,
        )
    value, interval = weighted_mean([by_name[group] for group in weights], list(weights.values()))
    constant = sum(weight * by_name[group].best_constant for group, weight in weights.items())
    return Official(name=name, value=value, interval=interval, best_constant=constant)

"""The arms beside each other: accuracies of every seed, and paired differences from the reference arm.

Seeds have pictures of their own, so questions of different seeds are never paired, and a picture (with all its
questions) belongs to one seed. Two sources of chance are kept apart:

- *questions*: other pictures might have been asked about. An interval from a bootstrap over pictures and a p-value
  from sign flips of pictures, both over all seeds, take the trained models as they are.
- *training*: other seeds might have been drawn. Only the spread of the differences between seeds speaks of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev
from typing import Literal

from scipy.stats import t as student

from theworld.evaluation.audit.comparison import holm
from theworld.evaluation.report import Report
from theworld.evaluation.statistics import Interval, cluster_bootstrap, sign_flip_test

PARTS = ("overall", "qualitative", "quantitative")
LEVEL = 0.05
Verdict = Literal["none", "models", "training"]
_Paired = tuple[list[float], list[str]]


@dataclass(frozen=True)
class Accuracy:
    """Right answers of an arm in one part of the questions.

    Attributes:
        by_seed: Share of right answers with each seed.
        best_constant: What the best constant answers have, mean over the seeds; the same for all arms.
        n: Questions with each seed.
    """

    by_seed: tuple[float, ...]
    best_constant: float
    n: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return mean(self.by_seed)


@dataclass(frozen=True)
class Evidence:
    """Of a difference, under one source of chance.

    Attributes:
        interval: 95 % interval of the difference.
        p_value: Two-sided, if there were none.
        p_holm: The same, corrected for the number of arms.
    """

    interval: Interval
    p_value: float
    p_holm: float

    @property
    def is_clear(self) -> bool:
        """Whether it is below the level after the correction."""
        return self.p_holm < LEVEL


@dataclass(frozen=True)
class Difference:
    """Accuracy of an arm minus that of the reference on the same questions, in one part of them.

    Attributes:
        by_seed: With each seed.
        questions: Of the models as they were trained: all seeds together, pictures resampled.
        training: From the differences of the seeds alone; None with one seed.
    """

    by_seed: tuple[float, ...]
    questions: Evidence
    training: Evidence | None

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return mean(self.by_seed)

    @property
    def verdict(self) -> Verdict:
        """`none`, `models` (those that were trained here differ) or `training` (those trained again would as well)."""
        if not self.questions.is_clear:
            return "none"
        return "training" if self.training is not None and self.training.is_clear else "models"


@dataclass(frozen=True)
class Comparison:
    """The whole grid.

    Attributes:
        reference: Arm that the others are compared with.
        seeds: In the order of every `by_seed`.
        accuracies: Arm → part → right answers.
        differences: Arm, other than the reference → part → difference.
        alarms: What must not be, such as two arms with the very same answers.
    """

    reference: str
    seeds: tuple[int, ...]
    accuracies: Mapping[str, Mapping[str, Accuracy]]
    differences: Mapping[str, Mapping[str, Difference]]
    alarms: tuple[str, ...]


def compare(reports: Mapping[tuple[str, int], Report], *, reference: str) -> Comparison:
    """Compare scored answers, given for each arm and seed.

    Raises:
        ValueError: Two arms of a seed answered different questions, or a seed lacks an arm.
    """
    arms, seeds = (tuple(dict.fromkeys(key[place] for key in reports)) for place in (0, 1))
    for seed in seeds:
        for arm in arms:
            _check_same_questions(arm, reference, seed, reports)
    parts = [part for part in PARTS if all(_has(reports[reference, seed], part) for seed in seeds)]
    accuracies = {arm: {part: _accuracy([reports[arm, s] for s in seeds], part) for part in parts} for arm in arms}
    others = [arm for arm in arms if arm != reference]
    differences: dict[str, dict[str, Difference]] = {arm: {} for arm in others}
    for part in parts:
        found = {arm: _paired(arm, reference, seeds, reports, part) for arm in others}
        by_seed = {arm: tuple(mean(values) for values, _ in of_seeds) for arm, of_seeds in found.items()}
        questions = _corrected({arm: _of_questions(of_seeds) for arm, of_seeds in found.items()})
        training = _corrected({arm: _of_training(d) for arm, d in by_seed.items()}) if len(seeds) > 1 else {}
        for arm in others:
            differences[arm][part] = Difference(by_seed[arm], questions[arm], training.get(arm))
    return Comparison(reference, seeds, accuracies, differences, _alarms(arms, seeds, reports))


def _has(report: Report, part: str) -> bool:
    """A small set may lack a type of question."""
    return any(row.name == part for row in report.groups)


def _check_same_questions(arm: str, reference: str, seed: int, reports: Mapping[tuple[str, int], Report]) -> None:
    for name in (arm, reference):
        if (name, seed) not in reports:
            raise ValueError(f"found no answers of {name} with seed {seed}, expected every arm with every seed")
    own, expected = ([p.question for p in reports[name, seed].predictions] for name in (arm, reference))
    if own != expected:
        raise ValueError(
            f"seed {seed}: {arm} answered other questions than {reference}, expected the same; run both anew"
        )


def _accuracy(reports: Sequence[Report], part: str) -> Accuracy:
    rows = [report.row(part) for report in reports]
    return Accuracy(
        tuple(row.accuracy for row in rows), mean(row.best_constant for row in rows), tuple(row.n for row in rows)
    )


def _paired(
    arm: str, reference: str, seeds: Sequence[int], reports: Mapping[tuple[str, int], Report], part: str
) -> list[_Paired]:
    """For each seed: of each question 1 if only the arm is right, −1 if only the reference is, else 0; its picture."""
    found = []
    for seed in seeds:
        own, other = reports[arm, seed], reports[reference, seed]
        chosen = [
            (float(a.correct) - float(b.correct), f"{seed}/{p.question.image_id}")
            for p, a, b in zip(own.predictions, own.scores, other.scores, strict=True)
            if part in ("overall", p.question.qa_type)
        ]
        found.append(([value for value, _ in chosen], [picture for _, picture in chosen]))
    return found


def _of_questions(of_seeds: Sequence[_Paired]) -> tuple[Interval, float]:
    """Every question counts alike; seeds have as many, or nearly."""
    values = [value for values, _ in of_seeds for value in values]
    pictures = [picture for _, pictures in of_seeds for picture in pictures]
    return cluster_bootstrap(values, pictures), sign_flip_test(values, pictures)


def _of_training(differences: Sequence[float]) -> tuple[Interval, float]:
    """Student's t of the differences by seed."""
    centre, freedom = mean(differences), len(differences) - 1
    error = stdev(differences) / len(differences) ** 0.5
    half = float(student.ppf(0.975, freedom)) * error
    if error == 0:
        return Interval(centre, centre), 0.0 if centre else 1.0
    return Interval(centre - half, centre + half), float(2 * student.sf(abs(centre) / error, freedom))


def _corrected(found: Mapping[str, tuple[Interval, float]]) -> dict[str, Evidence]:
    """Holm's correction over the arms."""
    p_holm = holm({arm: p_value for arm, (_, p_value) in found.items()})
    return {arm: Evidence(interval, p_value, p_holm[arm]) for arm, (interval, p_value) in found.items()}


def _alarms(arms: Sequence[str], seeds: Sequence[int], reports: Mapping[tuple[str, int], Report]) -> tuple[str, ...]:
    """Arms whose answers are the same, text by text: what tells them apart did not reach the model."""
    return tuple(
        f"{first} and {second} gave the same answer to each of {len(reports[first, seed].predictions)} questions with "
        f"seed {seed}: what tells these arms apart does not reach the answers"
        for seed in seeds
        for first, second in combinations(arms, 2)
        if [p.text for p in reports[first, seed].predictions] == [p.text for p in reports[second, seed].predictions]
    )

"""Intervals and paired tests for accuracies: Wilson, exact McNemar, and over images a bootstrap and sign flips."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """An exact McNemar test of two methods on the same questions.

    Attributes:
        only_first: Questions that only the first method got right.
        only_second: Questions that only the second method got right.
        p_value: Two-sided probability of a split at least this uneven if both were equally good.
    """

    only_first: int
    only_second: int
    p_value: float


def wilson_interval(correct: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of `correct` out of `n`, which treats the questions as independent.

    Raises:
        ValueError: `n` is not positive, `correct` is not in [0, n], or `confidence` is not in (0, 1).
    """
    _check_confidence(confidence)
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(
            f"found {correct} correct of {n}; expected 0 <= correct <= n and n >= 1; pass counts of one set"
        )
    z = float(norm.ppf((1 + confidence) / 2))
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return Interval(low, high)


def mcnemar_exact(first: Sequence[bool], second: Sequence[bool]) -> PairedTest:
    """Exact paired test of two methods; questions on which they agree carry no evidence.

    Raises:
        ValueError: The two sequences differ in length.
    """
    if len(first) != len(second):
        raise ValueError(
            f"found {len(first)} and {len(second)} outcomes; expected one pair a question; "
            "score both methods on the same questions"
        )
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return PairedTest(only_first, only_second, p_value)


def cluster_bootstrap(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[str] | np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean when whole clusters (the questions of one image) are drawn with replacement.

    The result depends on the values and the names of the clusters, not on the order of the questions. With all values
    equal the resamples have no spread and the interval is a point.

    Args:
        values: One value a question, e.g. 1 for correct and 0 for wrong, or a difference of two methods.
        clusters: Cluster of each value, e.g. its image; names or numbers.
        confidence: Coverage, between 0 and 1.
        resamples: Draws.
        seed: Seed of the draws.

    Raises:
        ValueError: There is no value, the lengths differ, or a number is out of its range.
    """
    _check_confidence(confidence)
    _check_clusters(values, clusters, resamples)
    _, members = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(members, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(members).astype(np.float64)
    # Clusters of the same sum and count are the same to a draw, so only how many of each kind are drawn is random.
    # As complex numbers, which numpy orders by both parts as it does rows of two numbers, and much faster.
    kinds, of_kind = np.unique(sums + 1j * counts, return_counts=True)  # (K,), (K,)
    generator = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, rows := max(1, _CHUNK // len(kinds))):
        size = min(rows, resamples - start)
        drawn = generator.multinomial(len(sums), of_kind / len(sums), size=size)  # (size, K)
        means.append((drawn @ kinds.real) / (drawn @ kinds.imag))  # (size,)
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(low), float(high))


def sign_flip_test(
    differences: Sequence[float], clusters: Sequence[str], *, resamples: int = 20_000, seed: int = 0
) -> float:
    """Two-sided p-value of paired differences whose clusters, but not whose questions, are independent.

    If two methods are equally good, the differences of an image (all its questions together) are as likely to be their
    negatives. The p-value is the share of random choices of signs, one a cluster, with a sum at least as far from 0 as
    the one found; the found one counts as one of them, so it is never below 1 / (`resamples` + 1).

    Args:
        differences: One a question: 1 if only the first method is right, −1 if only the second is, else 0.
        clusters: Cluster of each question, e.g. its image.
        resamples: Random choices of signs.
        seed: Seed of these.

    Raises:
        ValueError: There is no difference, the lengths differ, or `resamples` is not positive.
    """
    _check_clusters(differences, clusters, resamples)
    _, members = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(members, weights=np.asarray(differences, dtype=np.float64))
    sums = np.sort(sums[sums != 0])  # of the others no sign matters; sorted, so that no order of questions does either
    if not len(sums):
        return 1.0
    generator = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, resamples, rows := max(1, _CHUNK // len(sums))):
        size = min(rows, resamples - start)
        signs = generator.choice((-1.0, 1.0), size=(size, len(sums)))
        extreme += int(np.count_nonzero(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9))
    return (extreme + 1) / (resamples + 1)


def _check_clusters(values: Sized, clusters: Sized, resamples: int) -> None:
    if len(values) == 0 or len(values) != len(clusters):
        raise ValueError(
            f"found {len(values)} values and {len(clusters)} clusters; expected one cluster a value and at least "
            "one value; pass the image of every question"
        )
    if resamples < 1:
        raise ValueError(f"found resamples={resamples}; expected at least 1; 2000 is enough for two digits")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"found confidence={confidence}; expected a number between 0 and 1, e.g. 0.95")

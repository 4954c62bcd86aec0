"""Intervals and tests against values worked out by hand or by another method."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from theworld.evaluation.statistics import Interval, PairedTest, cluster_bootstrap, mcnemar_exact, wilson_interval


@pytest.mark.parametrize(("correct", "n"), [(0, 5), (3, 5), (5, 5), (37, 100), (999, 1000)])
def test_wilson_agrees_with_scipy(correct: int, n: int) -> None:
    expected = binomtest(correct, n).proportion_ci(method="wilson")
    found = wilson_interval(correct, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand() -> None:
    # z² = 3.8414588: centre of 5 of 10 is ½, half width ½ · z/√(n + z²).
    half = 0.5 * (3.841458820694124 / 13.841458820694124) ** 0.5
    found = wilson_interval(5, 10)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-9)
    assert wilson_interval(0, 3).low == 0.0
    assert wilson_interval(3, 3).high == 1.0


def test_mcnemar_counts_only_disagreements() -> None:
    first = [True] * 8 + [False] * 1 + [True] * 50 + [False] * 20
    second = [False] * 8 + [True] * 1 + [True] * 50 + [False] * 20
    expected = 2 * (comb(9, 0) + comb(9, 1)) / 2**9
    found, mirrored = mcnemar_exact(first, second), mcnemar_exact(second, first)
    assert (found.only_first, found.only_second, mirrored.only_first, mirrored.only_second) == (8, 1, 1, 8)
    assert (found.p_value, mirrored.p_value) == pytest.approx((expected, expected), rel=1e-12)
    assert mcnemar_exact(first, first) == PairedTest(0, 0, 1.0)


def test_bootstrap_is_seeded_and_independent_of_order() -> None:
    values = [float(i % 7 in (0, 1, 4)) for i in range(60)]
    clusters = [f"image-{i // 4}" for i in range(60)]
    interval = cluster_bootstrap(values, clusters)
    assert interval == cluster_bootstrap(values[::-1], clusters[::-1])
    assert interval != cluster_bootstrap(values, clusters, seed=1)
    assert interval.low < sum(values) / 60 < interval.high


def test_bootstrap_widens_when_questions_of_an_image_agree() -> None:
    values = [float(i % 2) for i in range(50) for _ in range(8)]
    by_image = cluster_bootstrap(values, [f"{i}" for i in range(50) for _ in range(8)])
    as_if_independent = cluster_bootstrap(values, [str(i) for i in range(400)])
    ratio = (by_image.high - by_image.low) / (as_if_independent.high - as_if_independent.low)
    assert ratio == pytest.approx(8**0.5, rel=0.1)
    # 50 fair coins: a standard deviation of ½/√50 on each side of one half.
    assert (by_image.low, by_image.high) == pytest.approx((0.5 - 1.96 * 0.0707, 0.5 + 1.96 * 0.0707), abs=0.02)


def test_bootstrap_of_a_constant_is_a_point_and_chunks_do_not_show() -> None:
    assert cluster_bootstrap([1.0, 1.0, 1.0], ["a", "b", "b"]) == Interval(1.0, 1.0)
    many = np.arange(3000) % 2
    wide = cluster_bootstrap(many.tolist(), [str(i) for i in range(3000)], resamples=700)
    assert (wide.low, wide.high) == pytest.approx((0.5 - 0.0179, 0.5 + 0.0179), abs=0.003)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="found 4 correct of 3"):
        wilson_interval(4, 3)
    with pytest.raises(ValueError, match="found 0 correct of 0"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match="found confidence=95; expected a number between 0 and 1"):
        wilson_interval(1, 2, confidence=95)
    with pytest.raises(ValueError, match="found 1 and 2 outcomes"):
        mcnemar_exact([True], [True, False])
    with pytest.raises(ValueError, match="found 1 values and 2 clusters"):
        cluster_bootstrap([1.0], ["a", "b"])
    with pytest.raises(ValueError, match="found 0 values and 0 clusters"):
        cluster_bootstrap([], [])
    with pytest.raises(ValueError, match="found resamples=0"):
        cluster_bootstrap([1.0], ["a"], resamples=0)


def test_the_bootstrap_is_the_plain_one_to_the_last_bit():
    """Kinds of clusters as rows of a matrix, in the order in which numpy sorts them; names and numbers alike."""
    random = np.random.default_rng(5)
    values, clusters = random.integers(-1, 2, 700).astype(float), random.integers(0, 150, 700)
    sums, counts = np.bincount(clusters, weights=values), np.bincount(clusters).astype(float)
    kinds, of_kind = np.unique(np.stack([sums, counts], axis=1), axis=0, return_counts=True)
    assert len(kinds) > 20
    drawn = np.random.default_rng(0).multinomial(len(sums), of_kind / len(sums), size=2000) @ kinds
    tail = (1 - 0.95) / 2
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [tail, 1 - tail])
    assert cluster_bootstrap(values, clusters) == Interval(low, high)
    assert cluster_bootstrap(values.tolist(), [f"image-{number}" for number in clusters]) == Interval(low, high)

"""Rows within their limits, every sample once, and as full as the lengths allow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.data.packing import fill as packing
from theworld.data.packing.fill import pack_rows, pack_unlike_rows, split_rows


def _rows(order, starts):
    return [order[first:last].tolist() for first, last in zip(starts, starts[1:], strict=False)]


@pytest.mark.parametrize("pack", [pack_rows, pack_unlike_rows])
@settings(max_examples=150, deadline=None)
@given(
    samples=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), min_size=1, max_size=120),
    budget=st.integers(60, 300),
    max_images=st.one_of(st.none(), st.integers(3, 7)),
)
def test_every_sample_once_within_both_limits(pack, samples, budget, max_images):
    sizes, images = (np.array(column, dtype=np.int64) for column in zip(*samples, strict=True))
    order, starts = pack(sizes, images, budget=budget, max_images=max_images)
    assert sorted(order.tolist()) == list(range(len(sizes)))
    assert (starts[0], starts[-1]) == (0, len(sizes))
    for row in _rows(order, starts):
        assert 0 < sizes[row].sum() <= budget
        if max_images is not None:
            assert images[row].sum() <= max_images


def test_no_row_is_closed_while_a_waiting_sample_fits():
    rng = np.random.default_rng(0)
    sizes, images = rng.integers(1, 60, 300), rng.integers(0, 3, 300)
    order, starts = pack_rows(sizes, images, budget=200, max_images=5)
    rows = _rows(order, starts)
    for number, row in enumerate(rows):
        room, image_room = 200 - sizes[row].sum(), 5 - images[row].sum()
        later = np.array([sample for other in rows[number + 1 :] for sample in other], dtype=int)
        assert not np.any((sizes[later] <= room) & (images[later] <= image_room))


@pytest.mark.parametrize(
    ("drawn", "budget", "alike"),
    [
        ((4096, 1024, 256, 64, 16), 14336, 0.998),
        ((4096, 256), 14336, 0.86),
        ((4096, 256), 9728, 0.79),
        ((4096, 16), 14336, 0.85),
        ((1024, 16), 9728, 0.999),
    ],
)
def test_lengths_that_are_drawn_fill_99_percent(drawn, budget, alike):
    """OSD's lengths with other numbers of world tokens; what is for lengths that are alike leaves long ones over."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(4300, 5201, 20_000) - 4096 + np.array(drawn)[rng.permutation(20_000) % len(drawn)]
    images = np.ones_like(sizes)
    _, starts = pack_unlike_rows(sizes, images, budget=budget)
    assert sizes.sum() / (budget * (len(starts) - 1)) >= 0.99
    _, others = pack_rows(sizes, images, budget=budget)
    assert sizes.sum() / (budget * (len(others) - 1)) <= alike


def test_unlike_rows_by_hand():
    """9 and 6 fill a row of 15; so do 8, 5 and 2; 4 has the third. Rows and their samples are in the order given."""
    order, starts = pack_unlike_rows(np.array([4, 9, 6, 5, 2, 8]), np.ones(6, dtype=np.int64), budget=15)
    assert _rows(order, starts) == [[0], [1, 2], [3, 4, 5]]


def test_rows_of_one_sample_have_one_order():
    """So that arms of an ablation see the same samples in the same steps, whatever they draw."""
    sizes = np.random.default_rng(0).integers(1, 60, 3000)
    images = np.ones_like(sizes)
    found = [pack(sizes, images, budget=60, max_images=1) for pack in (pack_rows, pack_unlike_rows)]
    assert all(order.tolist() == list(range(3000)) for order, _ in found)


def test_one_row_by_hand():
    """Oldest first (4); room for two more of the mean 5, so one of at most 11 / 2, then the largest that fits."""
    order, starts = pack_rows(np.array([4, 9, 6, 5, 2]), budget=15)
    assert _rows(order, starts)[0] == [0, 3, 2]


def uniform_lengths(rng, n):
    return rng.integers(4300, 5201, n)


def skewed_lengths(rng, n):
    return np.clip(4340 + rng.gamma(4, 90, n), 4300, 5200).astype(np.int64)


def tiny_lengths(rng, n):
    return rng.integers(300, 361, n)


@pytest.mark.parametrize(
    ("lengths", "budget"),
    [(uniform_lengths, b) for b in (9600, 9728, 14336, 19200, 38400)]
    + [(skewed_lengths, 14336), (skewed_lengths, 18944), (tiny_lengths, 672)],
)
@pytest.mark.parametrize("capped", [False, True], ids=["tokens", "tokens and images"])
def test_osd_like_lengths_fill_97_percent(lengths, budget, capped):
    """Budgets that hold a whole number of average samples; the image cap is as many images as average samples."""
    sizes = lengths(np.random.default_rng(1), 30_000)
    cap = round(budget / sizes.mean()) if capped else None
    _, starts = pack_rows(sizes, np.ones_like(sizes), budget=budget, max_images=cap)
    assert sizes.sum() / (budget * (len(starts) - 1)) >= 0.97


@pytest.mark.parametrize(
    ("lengths", "budget", "max_images"),
    [
        (uniform_lengths, 10240, None),
        (uniform_lengths, 12288, None),
        (uniform_lengths, 24576, 4),
        (tiny_lengths, 704, None),
        (tiny_lengths, 1024, 2),
    ],
)
def test_other_budgets_are_as_full_as_arithmetic_allows(lengths, budget, max_images):
    """No row can hold more samples than of the shortest would fit, nor more images; ours are within 0.1 % of that."""
    sizes = lengths(np.random.default_rng(1), 30_000)
    _, starts = pack_rows(sizes, np.ones_like(sizes), budget=budget, max_images=max_images)
    most = min(budget // sizes.min(), max_images or budget)
    assert len(starts) - 1 <= np.ceil(len(sizes) / most) * 1.001


@pytest.mark.parametrize("budget", [9400, 9500, 9600])
def test_pairs_are_as_many_as_the_best_matching_has(budget):
    """Where rows hold two at most the optimum is known: the longest goes with the shortest, if that fits."""
    sizes = skewed_lengths(np.random.default_rng(1), 10_000)
    ascending, short, pairs = np.sort(sizes), 0, 0
    for long in range(len(sizes) - 1, 0, -1):
        if short < long and ascending[short] + ascending[long] <= budget:
            short, pairs = short + 1, pairs + 1
    best = len(sizes) - pairs
    assert best <= len(pack_rows(sizes, budget=budget)[1]) - 1 <= best * 1.002


def test_two_long_samples_do_not_meet_where_a_third_would_have_fitted(monkeypatch):
    """What `_CHOSEN` is for: with it off (every sample by order, the last by size) the rows are emptier."""
    sizes = uniform_lengths(np.random.default_rng(1), 10_000)
    rows = len(pack_rows(sizes, budget=14336)[1])
    monkeypatch.setattr(packing, "_CHOSEN", 1)
    assert len(pack_rows(sizes, budget=14336)[1]) > 1.005 * rows


def test_no_sample_waits_long():
    sizes = np.random.default_rng(0).integers(10, 1000, 20_000)
    order, _ = pack_rows(sizes, budget=4000)
    assert np.abs(order - np.arange(len(order))).max() <= 2 * packing.POOL


def test_splitting_halves_the_rows_with_most_samples():
    assert split_rows(np.array([0, 2, 7, 8]), 3).tolist() == [0, 2, 7, 8]
    assert split_rows(np.array([0, 2, 7, 8]), 5).tolist() == [0, 1, 2, 4, 7, 8]
    assert split_rows(np.array([0, 8]), 8).tolist() == list(range(9))

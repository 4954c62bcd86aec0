"""Every sample once, no row over its limits, well filled, the same steps every epoch, and fast."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.data.packing.plan import plan


def _order(made):
    return np.concatenate(made.bins).tolist()


@settings(max_examples=100, deadline=None)
@given(
    samples=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 2), st.integers(0, 5)), min_size=24, max_size=200),
    step=st.sampled_from([1, 2, 3, 8]),
    epoch=st.integers(0, 3),
    max_images=st.sampled_from([None, 2, 5]),
    window=st.sampled_from([None, 1, 2]),
    shuffle=st.booleans(),
)
def test_every_sample_exactly_once_within_budget_in_whole_steps(samples, step, epoch, max_images, window, shuffle):
    sizes, images, groups = np.array(samples).T
    arguments = {"images": images, "groups": groups, "max_images": max_images, "window": window, "shuffle": shuffle}
    settings_ = {"seed": 3, "budget": 200, "micro_batches_per_step": step} | arguments
    made = plan(sizes, epoch=epoch, **settings_)
    assert sorted(_order(made)) == list(range(len(sizes)))
    assert all(0 < sizes[members].sum() <= 200 for members in made.bins)
    assert max_images is None or all(images[members].sum() <= max_images for members in made.bins)
    assert len(made.bins) == made.num_rows == made.num_steps * step
    assert made.num_steps == plan(sizes, epoch=0, **settings_).num_steps
    steps = [members.tolist() for number in range(made.num_steps) for members in made.step(number)]
    assert steps == [members.tolist() for members in made.bins]
    assert made.fill_ratio == pytest.approx(sizes.sum() / (200 * len(made.bins)))
    assert made.sums(images).tolist() == [sum(images[row].sum() for row in made.step(n)) for n in range(made.num_steps)]


def test_same_call_same_plan_and_nothing_else_is():
    lengths = np.random.default_rng(0).integers(10, 50, 300)
    settings_ = {"seed": 1, "epoch": 0, "budget": 200, "micro_batches_per_step": 4}
    first = plan(lengths, **settings_)
    assert plan(lengths, **settings_).sha256 == first.sha256
    for key, value in {"seed": 2, "epoch": 1, "budget": 201, "micro_batches_per_step": 2}.items():
        other = plan(lengths, **settings_ | {key: value})
        assert other.sha256 != first.sha256
    grouped = {frozenset(members.tolist()) for members in first.bins}
    regrouped = {frozenset(members.tolist()) for members in plan(lengths, **settings_ | {"epoch": 1}).bins}
    assert len(grouped & regrouped) < 0.1 * len(grouped)  # samples meet new neighbours


def test_without_shuffle_rows_follow_the_file():
    made = plan([5, 5, 5, 5, 5, 5], seed=0, epoch=0, budget=10, micro_batches_per_step=1, shuffle=False)
    assert [members.tolist() for members in made.bins] == [[0, 1], [2, 3], [4, 5]]


def test_a_plan_is_97_percent_full_in_every_epoch():
    """OSD-like lengths, with both limits, whole steps of 32 rows, and the few rows kept for other epochs."""
    sizes = np.random.default_rng(0).integers(4300, 5201, 20_000)
    for epoch in (0, 1):
        made = plan(
            sizes,
            images=np.ones_like(sizes),
            seed=0,
            epoch=epoch,
            budget=14336,
            micro_batches_per_step=32,
            max_images=3,
        )
        assert made.fill_ratio >= 0.97


def test_planning_takes_time_in_proportion(monkeypatch):
    """No search grows with the number of samples: `experiments/speed/data` times a million of them."""
    small, large = (np.random.default_rng(0).integers(300, 2000, n) for n in (5_000, 50_000))
    took = []
    for sizes in (small, large):
        start = time.process_time()
        plan(sizes, seed=0, epoch=1, budget=8192, micro_batches_per_step=32)
        took.append(time.process_time() - start)
    assert took[1] < 40 * took[0]


def test_windows_keep_together_what_lies_together():
    """Each stretch of rows holds the samples of `window` whole shards; which shards meet changes with the epoch."""
    shards = np.repeat(np.arange(12), 50)
    sizes = np.random.default_rng(0).integers(10, 50, len(shards))
    arguments = {"groups": shards, "seed": 1, "budget": 200, "micro_batches_per_step": 4}
    met = []
    for epoch in (0, 1):
        made = plan(sizes, epoch=epoch, window=3, **arguments)
        row = np.repeat(np.arange(made.num_rows), np.diff(made.starts))
        spans = sorted((row[shards[made.samples] == shard][[0, -1]].tolist(), shard) for shard in range(12))
        windows, end = [], -1
        for (first, last), shard in spans:  # shards whose rows overlap are in one window
            if first > end:
                windows.append(set())
            windows[-1].add(shard)
            end = max(end, last)
        assert [len(window) for window in windows] == [3, 3, 3, 3]
        met.append({frozenset(window) for window in windows})
    assert met[0] != met[1]
    free = plan(sizes, epoch=0, **arguments)
    assert len(set(shards[np.concatenate(free.bins[:4])].tolist())) > 3  # control: without a window all shards mix


def test_an_epoch_that_does_not_fit_takes_an_earlier_epochs_rows():
    sizes = np.random.default_rng(0).integers(100, 2000, 300)
    arguments = {"seed": 0, "budget": 4096, "micro_batches_per_step": 1}
    first = plan(sizes, epoch=0, **arguments)
    rows = {frozenset(members.tolist()) for members in first.bins}
    repeated = []
    for epoch in range(1, 7):
        made = plan(sizes, epoch=epoch, **arguments)
        assert made.num_rows == first.num_rows
        repeated.append({frozenset(members.tolist()) for members in made.bins} == rows)
        assert [b.tolist() for b in made.bins] != [b.tolist() for b in first.bins]
    assert any(repeated)
    roomy = plan(sizes, epoch=1, num_steps=first.num_steps + 8, **arguments)
    assert roomy.num_rows == first.num_rows + 8
    assert {frozenset(members.tolist()) for members in roomy.bins} != rows
    with pytest.raises(ValueError, match=r"found \d+ packed rows, expected at most 10 from num_steps"):
        plan(sizes, epoch=1, num_steps=10, **arguments)


def test_renumbered():
    made = plan([5, 5, 5], seed=0, epoch=0, budget=10, micro_batches_per_step=1, shuffle=False)
    named = made.renumbered(np.array([7, 8, 8]))
    assert [members.tolist() for members in named.bins] == [[7, 8], [8]]
    assert named.sha256 != made.sha256


def test_order_is_shuffled_evenly():
    """Neither long samples nor those of the file's beginning are trained early."""
    lengths = np.random.default_rng(0).integers(10, 1000, 3000)
    order = np.array(_order(plan(lengths, seed=0, epoch=0, budget=2000, micro_batches_per_step=1)))
    assert abs(lengths[order[:1500]].mean() - lengths[order[1500:]].mean()) < 50
    assert abs(order[:1500].mean() - order[1500:].mean()) < 150


@pytest.mark.parametrize(
    ("lengths", "step", "message"),
    [
        ([5, 11, 5], 1, "sample 1 has 11 tokens, expected at most the budget of 10"),
        ([5, 0, 5], 1, "sample 1 has length 0"),
        ([5, 5], 3, "found 2 samples, expected at least micro_batches_per_step=3"),
        (
            [8, 8, 8],
            2,
            "found 3 packed rows of 3 samples, which cannot be split into whole steps of 2 rows",
        ),
        ([5], 0, "micro_batches_per_step is 0"),
    ],
)
def test_impossible_plans(lengths, step, message):
    with pytest.raises(ValueError, match=message):
        plan(lengths, seed=0, epoch=0, budget=10, micro_batches_per_step=step)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_images": 2}, "max_images needs the number of images of each sample"),
        ({"max_images": 2, "images": [1, 3, 1]}, "sample 1 has 3 images, expected at most max_images=2"),
        ({"window": 0, "groups": [0, 0, 1]}, "window is 0, expected at least 1 group"),
        ({"window": 2}, "found window=2 and the groups of 0 samples, expected the group .* of each of the 3 samples"),
    ],
)
def test_impossible_limits(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan([5, 5, 5], seed=0, epoch=0, budget=10, micro_batches_per_step=1, **arguments)


def test_step_out_of_range():
    made = plan([5], seed=0, epoch=0, budget=10, micro_batches_per_step=1)
    with pytest.raises(IndexError, match="the plan has 1 steps"):
        made.step(1)

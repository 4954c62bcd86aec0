"""Every sample once, no row over budget, well filled, the same steps every epoch, and fast."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.data.plan import plan


def _order(made):
    return np.concatenate(made.bins).tolist()


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=24, max_size=200),
    step=st.sampled_from([1, 2, 3]),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_every_sample_exactly_once_within_budget_in_whole_steps(lengths, step, epoch, shuffle):
    made = plan(lengths, seed=3, epoch=epoch, budget=200, micro_batches_per_step=step, shuffle=shuffle)
    assert sorted(_order(made)) == list(range(len(lengths)))
    sizes = np.array(lengths)
    assert all(0 < sizes[members].sum() <= 200 for members in made.bins)
    assert len(made.bins) == made.num_steps * step
    first = plan(lengths, seed=3, epoch=0, budget=200, micro_batches_per_step=step, shuffle=shuffle)
    assert made.num_steps == first.num_steps
    steps = [members.tolist() for number in range(made.num_steps) for members in made.step(number)]
    assert steps == [members.tolist() for members in made.bins]
    assert made.fill_ratio == pytest.approx(sizes.sum() / (200 * len(made.bins)))


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


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_at_least_97_percent_full_and_planning_is_fast(seed):
    rng = np.random.default_rng(seed)
    lengths = np.where(rng.random(100_000) < 0.5, rng.integers(300, 900, 100_000), rng.integers(1000, 2000, 100_000))
    start = time.process_time()
    made = plan(lengths, seed=seed, epoch=1, budget=8192, micro_batches_per_step=32)
    took = time.process_time() - start
    assert made.fill_ratio >= 0.97
    assert took < 2


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
        ([8, 8, 8], 2, "found 3 packed rows of one sample each, expected 4.*raise token_budget"),
        ([5], 0, "micro_batches_per_step is 0"),
    ],
)
def test_impossible_plans(lengths, step, message):
    with pytest.raises(ValueError, match=message):
        plan(lengths, seed=0, epoch=0, budget=10, micro_batches_per_step=step)


def test_step_out_of_range():
    made = plan([5], seed=0, epoch=0, budget=10, micro_batches_per_step=1)
    with pytest.raises(IndexError, match="the plan has 1 steps"):
        made.step(1)

"""Which samples share a packed row, for a whole epoch, as a pure function of lengths and seed.

The same call gives the same plan on every rank, on any number of ranks, and after a restart. Every sample occurs
exactly once; the number of steps is the same in every epoch.
"""

from __future__ import annotations

import hashlib
import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]

OPEN_BINS = 64
"""Bins that still take samples; beyond it the fullest is closed, which bounds the work of a sample."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One epoch: bins of sample numbers, in the order in which they are trained.

    Attributes:
        bins: int64 sample numbers of each packed row; `micro_batches_per_step` consecutive ones are a step.
        micro_batches_per_step: Packed rows of one optimizer step, over all ranks and all accumulation.
        budget: Tokens of a packed row.
        fill_ratio: Share of all positions that hold a token.
        sha256: Hash of the bins, to notice a changed plan when a run is resumed.
    """

    bins: tuple[_Ints, ...]
    micro_batches_per_step: int
    budget: int
    fill_ratio: float
    sha256: str

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the epoch."""
        return len(self.bins) // self.micro_batches_per_step

    def step(self, number: int) -> tuple[_Ints, ...]:
        """The bins of one optimizer step."""
        if not 0 <= number < self.num_steps:
            raise IndexError(f"step {number} asked for, the plan has {self.num_steps} steps.")
        first = number * self.micro_batches_per_step
        return self.bins[first : first + self.micro_batches_per_step]


def plan(
    lengths: Sequence[int] | _Ints,
    *,
    seed: int,
    epoch: int,
    budget: int,
    micro_batches_per_step: int,
    shuffle: bool = True,
) -> Plan:
    """Pack every sample into rows of at most `budget` tokens.

    The samples are shuffled, put one by one into the open bin with the least room that takes them, and the bins are
    shuffled again. The number of bins is that of epoch 0, rounded up to whole steps by splitting bins; an epoch
    that needs more takes epoch 0's bins in its own order (Lightning asks for the length of an epoch only once).

    Args:
        lengths: Tokens of each sample.
        seed: Seed of the run.
        epoch: Number of the epoch.
        budget: Tokens of a packed row.
        micro_batches_per_step: Packed rows of one optimizer step (all ranks and all accumulation).
        shuffle: False packs in the given order and sorts bins by their first sample.

    Raises:
        ValueError: A sample is longer than the budget, or there are fewer samples than rows in a step.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    _check(sizes, budget, micro_batches_per_step)
    bins = _pack(sizes, _order(len(sizes), seed, 0, shuffle), budget)
    steps = -(-len(bins) // micro_batches_per_step)
    if shuffle and epoch > 0:
        fresh = _pack(sizes, _order(len(sizes), seed, epoch, shuffle), budget)
        bins = fresh if len(fresh) <= steps * micro_batches_per_step else bins
    bins = _split_to(bins, steps * micro_batches_per_step)
    if shuffle:
        order = np.random.default_rng((seed, epoch, 1)).permutation(len(bins))
        bins = [bins[i] for i in order]
    else:
        bins = sorted((sorted(members) for members in bins), key=lambda members: members[0])
    arrays = tuple(np.array(members, dtype=np.int64) for members in bins)
    digest = hashlib.sha256(np.array([budget, micro_batches_per_step, len(arrays)]).tobytes())
    digest.update(np.array([len(members) for members in arrays]).tobytes())
    digest.update(np.concatenate(arrays).tobytes())
    return Plan(
        bins=arrays,
        micro_batches_per_step=micro_batches_per_step,
        budget=budget,
        fill_ratio=float(sizes.sum() / (len(arrays) * budget)),
        sha256=digest.hexdigest(),
    )


def _check(sizes: _Ints, budget: int, micro_batches_per_step: int) -> None:
    if micro_batches_per_step < 1:
        raise ValueError(f"micro_batches_per_step is {micro_batches_per_step}, expected at least 1.")
    if len(sizes) < micro_batches_per_step:
        raise ValueError(
            f"found {len(sizes)} samples, expected at least micro_batches_per_step={micro_batches_per_step}, one for "
            "each packed row of a step; add samples or lower micro_batches_per_step."
        )
    if sizes.min() < 1:
        raise ValueError(f"sample {int(sizes.argmin())} has length {int(sizes.min())}, expected at least 1 token.")
    if sizes.max() > budget:
        raise ValueError(
            f"sample {int(sizes.argmax())} has {int(sizes.max())} tokens, expected at most the budget of {budget}; "
            "raise token_budget or lower max_seq_length."
        )


def _order(count: int, seed: int, epoch: int, shuffle: bool) -> _Ints:
    if not shuffle:
        return np.arange(count)
    return np.random.default_rng((seed, epoch, 0)).permutation(count)


def _pack(sizes: _Ints, order: _Ints, budget: int) -> list[list[int]]:
    """Each sample, in order, goes to the open bin with the least room that still takes it."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, bin) of the open bins, ascending
    for sample, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        position = bisect_left(room, (size, 0))
        if position < len(room):
            left, number = room.pop(position)
        else:
            left, number = budget, len(bins)
            bins.append([])
            if len(room) == OPEN_BINS:
                room.pop(0)
        bins[number].append(sample)
        if left > size:
            insort(room, (left - size, number))
    return bins


def _split_to(bins: list[list[int]], count: int) -> list[list[int]]:
    """Halve the bin with the most samples until there are `count` bins."""
    heap = [(-len(members), number) for number, members in enumerate(bins)]
    heapq.heapify(heap)
    out = list(bins)
    while len(out) < count:
        _, number = heapq.heappop(heap)
        members = out[number]
        half = len(members) // 2
        if half == 0:
            raise ValueError(
                f"found {len(out)} packed rows of one sample each, expected {count}, whole steps of "
                "micro_batches_per_step rows; raise token_budget so that rows can hold two samples, or choose a "
                "micro_batches_per_step that divides the number of samples."
            )
        out[number] = members[:half]
        out.append(members[half:])
        heapq.heappush(heap, (-len(out[number]), number))
        heapq.heappush(heap, (-len(out[-1]), len(out) - 1))
    return out

"""Which samples share a packed row, for a whole epoch, as a pure function of lengths and seed.

The same call gives the same plan on every rank, on any number of ranks, and after a restart. Every sample occurs
exactly once; the number of steps is the same in every epoch.

S samples · R packed rows · G packed rows of an optimizer step
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from theworld.data.packing.fill import pack_rows, pack_unlike_rows, split_rows
from theworld.data.packing.refusals import check_images, check_lengths, check_window

_Ints = NDArray[np.int64]

SPARE = 1000
"""One row in so many is planned more than epoch 0 needs, so that later epochs, packed anew, fit as well."""

SPARE_OF_OTHER_LENGTHS = 400
"""The same, and one row more, where lengths too are others in every epoch."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One epoch: rows of sample numbers, in the order in which they are trained.

    Attributes:
        samples: int64[S], sample numbers, row after row.
        starts: int64[R + 1], where each row begins in `samples`; the last entry is S.
        micro_batches_per_step: Packed rows of one optimizer step, over all ranks and all accumulation.
        budget: Tokens of a packed row.
        fill_ratio: Share of all positions that hold a token.
        fewer: int64[S], in the order of `samples`: tokens that each has less than its length in this epoch; None: none.
    """

    samples: _Ints
    starts: _Ints
    micro_batches_per_step: int
    budget: int
    fill_ratio: float
    fewer: _Ints | None = None

    @property
    def num_rows(self) -> int:
        """Packed rows of the epoch."""
        return len(self.starts) - 1

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the epoch."""
        return self.num_rows // self.micro_batches_per_step

    @property
    def bins(self) -> tuple[_Ints, ...]:
        """Sample numbers of every row."""
        return tuple(self.row(number) for number in range(self.num_rows))

    def row(self, number: int) -> _Ints:
        """Sample numbers of one row."""
        return self.samples[self.starts[number] : self.starts[number + 1]]

    def row_fewer(self, number: int) -> _Ints:
        """For each sample of one row: tokens that it has less than its length."""
        here = slice(self.starts[number], self.starts[number + 1])
        return np.zeros_like(self.samples[here]) if self.fewer is None else self.fewer[here]

    def step(self, number: int) -> tuple[_Ints, ...]:
        """The rows of one optimizer step."""
        return tuple(self.row(row) for row in self.rows_of(number))

    def rows_of(self, step: int) -> range:
        """Numbers of the rows of one optimizer step."""
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} asked for, the plan has {self.num_steps} steps.")
        return range(step * self.micro_batches_per_step, (step + 1) * self.micro_batches_per_step)

    def sums(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Sum of `values[sample]` over the samples of each step: one entry a step."""
        return np.add.reduceat(values[self.samples], self.starts[: -1 : self.micro_batches_per_step])

    def renumbered(self, numbers: _Ints) -> Plan:
        """The same rows with sample `i` called `numbers[i]`."""
        return replace(self, samples=numbers[self.samples])

    @cached_property
    def sha256(self) -> str:
        """Hash of the rows, to notice a changed plan when a run is resumed."""
        digest = hashlib.sha256(np.array([self.budget, self.micro_batches_per_step, self.num_rows]).tobytes())
        digest.update(self.starts.tobytes())
        digest.update(self.samples.tobytes())
        if self.fewer is not None:
            digest.update(self.fewer.tobytes())
        return digest.hexdigest()


def plan(
    lengths: Sequence[int] | _Ints,
    *,
    images: Sequence[int] | _Ints | None = None,
    groups: Sequence[int] | _Ints | None = None,
    seed: int,
    epoch: int,
    budget: int,
    micro_batches_per_step: int,
    max_images: int | None = None,
    window: int | None = None,
    shuffle: bool = True,
    num_steps: int | None = None,
    base_epoch: int = 0,
    fewer: Callable[[int], _Ints] | None = None,
) -> Plan:
    """Pack every sample into rows of at most `budget` tokens and `max_images` images.

    The samples are shuffled, packed (`fill`), and the rows are shuffled again. With a `window`, what
    is shuffled first are the groups (the shards that samples lie in); then the samples of every `window` groups are
    shuffled and packed among themselves, and rows stay within their window, so that shards are read one window after
    another.

    Lightning asks for the length of an epoch only once, so every epoch has as many rows as epoch 0 needs, rounded up to
    whole steps; rows are split to make up the number. An epoch that needs more takes epoch 0's rows in its own order,
    with epoch 0's `fewer`: its rows hold its lengths only.

    Args:
        lengths: Tokens of each sample.
        images: Images of each sample; needed with `max_images`.
        groups: Group of each sample, such as its shard; needed with `window`.
        seed: Seed of the run.
        epoch: Number of the epoch.
        budget: Tokens of a packed row.
        micro_batches_per_step: Packed rows of one optimizer step (all ranks and all accumulation).
        max_images: Most images of a packed row; None for any number.
        window: Groups that are shuffled together; None shuffles everything.
        shuffle: False packs in the given order and sorts rows by their first sample.
        num_steps: Steps that the epoch must have; None for what `base_epoch` needs.
        base_epoch: An earlier epoch with the same samples, in place of epoch 0.
        fewer: Number of an epoch → int64[S], tokens that each sample has less in it than `lengths` says.

    Raises:
        ValueError: A sample alone exceeds the budget, by `lengths`, or the images of a row, or there are too few
            samples for whole steps.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    counts = np.zeros_like(sizes) if images is None else np.asarray(images, dtype=np.int64)
    check_lengths(sizes, budget, micro_batches_per_step)
    if max_images is not None:
        check_images(images, counts, max_images)
    if window is not None:
        check_window(groups, window, len(sizes))

    def packed(number: int) -> _Packed:
        less = None if fewer is None else fewer(number)
        own = sizes if less is None else sizes - less
        if not shuffle:
            return _packed(own, counts, np.arange(len(sizes)), [0, len(sizes)], budget, max_images, less)
        order, edges = _shuffled(len(sizes), groups, window, np.random.default_rng((seed, number, 0)))
        return _packed(own, counts, order, edges, budget, max_images, less)

    base = packed(base_epoch) if num_steps is None else None
    if base is not None:
        spare = base.num_rows // SPARE if fewer is None else 1 + base.num_rows // SPARE_OF_OTHER_LENGTHS
        num_steps = _whole_steps(base.num_rows, len(sizes), micro_batches_per_step, spare if shuffle else 0)
    assert num_steps is not None
    rows = num_steps * micro_batches_per_step
    made = packed(epoch) if base is None or (shuffle and epoch != base_epoch) else base
    if made.num_rows > rows:
        made = base or packed(base_epoch)
    samples, starts = made.arranged(rows, np.random.default_rng((seed, epoch, 1)) if shuffle else None)
    return Plan(
        samples=samples,
        starts=starts,
        micro_batches_per_step=micro_batches_per_step,
        budget=budget,
        fill_ratio=float((sizes.sum() - (0 if made.fewer is None else made.fewer.sum())) / (rows * budget)),
        fewer=None if made.fewer is None else made.fewer[samples],
    )


@dataclass(frozen=True)
class _Packed:
    """Rows before they are split to whole steps and shuffled.

    Attributes:
        samples: int64[S], sample numbers, row after row.
        starts: int64[R + 1], where each row begins in `samples`.
        edges: Where each window begins in `samples`, and S.
        fewer: int64[S], by number of the sample, or None, as in `Plan`.
    """

    samples: _Ints
    starts: _Ints
    edges: Sequence[int]
    fewer: _Ints | None

    @property
    def num_rows(self) -> int:
        return len(self.starts) - 1

    def arranged(self, rows: int, rng: np.random.Generator | None) -> tuple[_Ints, _Ints]:
        """Samples and starts of exactly `rows` rows, windows and the rows in them shuffled; in order without `rng`."""
        if self.num_rows > rows:
            raise ValueError(f"found {self.num_rows} packed rows, expected at most {rows} from num_steps; raise it.")
        starts = split_rows(self.starts, rows)
        samples, lengths = self.samples, np.diff(starts)
        if rng is None:
            samples = samples[np.lexsort((samples, np.repeat(np.arange(rows), lengths)))]  # sorted within each row
            order = np.argsort(samples[starts[:-1]])
        else:
            window = np.searchsorted(self.edges, starts[:-1], side="right") - 1
            window = rng.permutation(len(self.edges) - 1)[window]
            order = rng.permutation(rows)
            order = order[np.argsort(window[order], kind="stable")]
        lengths = lengths[order]
        ends = np.cumsum(lengths)
        places = np.repeat(starts[:-1][order] - (ends - lengths), lengths) + np.arange(len(samples))
        return samples[places], np.concatenate([[0], ends])


def _packed(
    sizes: _Ints,
    images: _Ints,
    order: _Ints,
    edges: Sequence[int],
    budget: int,
    max_images: int | None,
    fewer: _Ints | None,
) -> _Packed:
    """The samples between any two neighbouring edges of `order`, packed among themselves; `fewer` is passed on."""
    pack = pack_rows if fewer is None else pack_unlike_rows
    samples, starts = [], [np.zeros(1, dtype=np.int64)]
    for first, last in pairwise(edges):
        members = order[first:last]
        places, begins = pack(sizes[members], images[members], budget=budget, max_images=max_images)
        samples.append(members[places])
        starts.append(first + begins[1:])
    return _Packed(np.concatenate(samples), np.concatenate(starts), edges, fewer)


def _shuffled(
    count: int, groups: Sequence[int] | _Ints | None, window: int | None, rng: np.random.Generator
) -> tuple[_Ints, Sequence[int]]:
    """Samples in random order, window after window; and where each window begins, and the number of samples."""
    if window is None:
        return rng.permutation(count), [0, count]
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    of_group = rng.permutation(len(names)) // window  # the window that each group falls into
    order = rng.permutation(count)
    order = order[np.argsort(of_group[group[order]], kind="stable")]
    return order, [0, *np.cumsum(np.bincount(of_group[group])).tolist()]


def _whole_steps(rows: int, samples: int, micro_batches_per_step: int, spare: int) -> int:
    """Steps that hold so many packed rows, and the spare ones for other epochs if the samples suffice."""
    steps = min(-(-(rows + spare) // micro_batches_per_step), samples // micro_batches_per_step)
    if steps * micro_batches_per_step < rows:
        raise ValueError(
            f"found {rows} packed rows of {samples} samples, which cannot be split into whole steps of "
            f"{micro_batches_per_step} rows, expected a sample for every row; raise token_budget so that rows can hold "
            "two samples, or choose a micro_batches_per_step that divides the number of samples."
        )
    return steps

"""A rank's rows of a plan as batches: what the worker processes of a loader read.

B rows of a batch (1) · T tokens of a row
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from theworld.data.features.steps import LIVE, CachedSteps
from theworld.data.packing.collator import pack
from theworld.data.packing.mixture import Mixture, Samples, as_mixture
from theworld.data.packing.plan import Plan, plan
from theworld.data.packing.zero_loss import zero_loss_sample
from theworld.data.world_block import without_world_tokens, world_token_counts
from theworld.types import Batch, FailedSample, Sample


class PackedRows(Dataset[Batch]):
    """Rows `rank`, `rank + world_size`, ... of every step of a plan, each with the target tokens of its whole step.

    Args:
        samples: The samples that the plan numbers.
        plan: Which of them share a row.
        rank: This process.
        world_size: Number of processes; divides the plan's `micro_batches_per_step`.
        first: This rank's rows of the plan to leave out, from the beginning.
        replace_failures: Put a zero-loss sample of the same length in the place of one that cannot be read, and note
            it in `Batch.failed`, so that rows, steps and ranks stay as planned. False raises.
        cached: In which optimizer steps features are read in place of pixels, if the samples have them.
        first_step: Optimizer steps of the run before the first one of the plan.
    """

    def __init__(
        self,
        samples: Samples | Mixture,
        plan: Plan,
        *,
        rank: int = 0,
        world_size: int = 1,
        first: int = 0,
        replace_failures: bool = False,
        cached: CachedSteps = LIVE,
        first_step: int = 0,
    ):
        self.mixture = as_mixture(samples)
        self.plan = plan
        self.rank = rank
        self.world_size = world_size
        self.first = first
        self.replace_failures = replace_failures
        self.cached = cached
        self.first_step = first_step
        targets: NDArray[np.generic] = self.mixture.targets
        if self.mixture.weights is not None:
            targets = self.mixture.targets * self.mixture.weights
        self.step_target_tokens = plan.sums(targets)

    def __len__(self) -> int:
        return self.plan.num_steps * self._per_step - self.first

    def __getitem__(self, number: int) -> Batch:
        """The packed row.

        Raises:
            ValueError: A sample cannot be read and is not to be replaced.
            OSError: Likewise.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} asked for, there are {len(self)}.")
        step, own = divmod(self.first + number, self._per_step)
        place = step * self.plan.micro_batches_per_step + own * self.world_size + self.rank
        row, fewer = self.plan.row(place), self.plan.row_fewer(place)
        failed: list[FailedSample] = []
        cached = self.cached.before(self.first_step + step) & self.mixture.features.keys()
        samples = [self._read(sample, cached, failed) for sample in row.tolist()]
        samples = [without_world_tokens(sample, less) for sample, less in zip(samples, fewer.tolist(), strict=True)]
        return pack(
            samples,
            budget=self.plan.budget,
            pad_token_id=self.mixture.processor.pad_token_id,
            step_target_tokens=self.step_target_tokens[step].item(),
            loss_weights=None if self.mixture.weights is None else self.mixture.weights[row].tolist(),
            failed=failed,
            world_token_counts=() if self.plan.fewer is None else world_token_counts(samples),
        )

    @property
    def _per_step(self) -> int:
        return self.plan.micro_batches_per_step // self.world_size

    def _read(self, number: int, cached: Collection[str], failed: list[FailedSample]) -> Sample:
        try:
            return self.mixture.read(number, cached=cached)
        except (ValueError, OSError) as error:
            if not self.replace_failures:
                raise
            name = self.mixture.id(number)
            targets = float(self.mixture.targets[number]) * self.mixture.loss_weight(number)
            failed.append(FailedSample(id=name, reason=str(error), targets=targets))
            return zero_loss_sample(
                self.mixture.processor,
                id=name,
                length=int(self.mixture.lengths[number]),
                images=int(self.mixture.num_images[number]),
                cached={name: self.mixture.features[name] for name in cached},
            )


def fixed_rows(
    samples: Samples | Mixture, *, budget: int, rank: int = 0, world_size: int = 1, max_images: int | None = None
) -> PackedRows:
    """All samples in their order, packed once, for validation; a failure raises.

    Args:
        samples: What is validated.
        budget: Tokens of a packed row.
        rank: This process.
        world_size: Number of processes.
        max_images: Most images of a packed row; None for any number.
    """
    made = as_mixture(samples)
    fixed = plan(
        made.lengths,
        images=made.num_images,
        seed=0,
        epoch=0,
        budget=budget,
        micro_batches_per_step=world_size,
        max_images=max_images,
        shuffle=False,
    )
    return PackedRows(made, fixed, rank=rank, world_size=world_size)

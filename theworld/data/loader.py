"""Loaders: planned packed rows with exact resume for training; anything in fixed order for validation and test.

None of them is a `DataLoader`, so Lightning leaves their sharding alone: a rank's share follows from the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from theworld.data.plan import Plan, plan
from theworld.data.samples import OSDSamples, PackedRows
from theworld.types import Batch

_Bin = NDArray[np.int64]
_Item = TypeVar("_Item")


class FixedLoader(Generic[_Item]):
    """The items of a data set in order, from the first one on at every pass (validation and test).

    Args:
        dataset: Whole batches.
        num_workers: Worker processes; 0 reads in this process.
    """

    def __init__(self, dataset: Dataset[_Item], *, num_workers: int = 0):
        self.batches = _in_order(dataset, num_workers)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[_Item]:
        return iter(self.batches)


class PlanLoader:
    """A rank's share of the planned rows of training, epoch after epoch, resumable at every optimizer step.

    A batch counts as consumed when it is handed out, and the epoch advances with its last batch: Lightning never
    asks for the one after, and saves its checkpoints in between. Iterating continues from the current position.

    Args:
        samples: The samples.
        budget: Tokens of a packed row.
        micro_batches_per_step: Rows of an optimizer step, over all ranks and all accumulation.
        seed: Seed of the plan.
        rank: This process; it takes rows `rank`, `rank + world_size`, ... of every step.
        world_size: Number of processes; must divide `micro_batches_per_step`.
        num_workers: Worker processes; 0 reads in this process.

    Attributes:
        epoch: Epoch of the next batch.
        plan: Plan of that epoch.
    """

    def __init__(
        self,
        samples: OSDSamples,
        *,
        budget: int,
        micro_batches_per_step: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ):
        if micro_batches_per_step % world_size:
            raise ValueError(
                f"micro_batches_per_step is {micro_batches_per_step}, expected a multiple of the {world_size} devices."
            )
        self.samples = samples
        self.budget = budget
        self.micro_batches_per_step = micro_batches_per_step
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.num_workers = num_workers
        self.epoch = 0
        self.plan = self._plan(0)
        self._consumed = 0

    def __len__(self) -> int:
        """Batches of this rank in an epoch, the same in every epoch."""
        return self.plan.num_steps * self._per_step

    def __iter__(self) -> Iterator[Batch]:
        rows = self._rows(self.plan, first=self._consumed)
        for batch in _in_order(rows, self.num_workers):
            self._consumed += 1
            if self._consumed == len(self):
                self.epoch += 1
                self.plan = self._plan(self.epoch)
                self._consumed = 0
            yield batch

    def state_dict(self) -> dict[str, int | str]:
        """Position and fingerprints; the same on every rank."""
        return {
            "epoch": self.epoch,
            "step": self._consumed // self._per_step,
            "unfinished_micro_batches": self._consumed % self._per_step,
        } | self._fingerprint()

    def load_state_dict(self, state_dict: dict[str, int | str]) -> None:
        """Continue from a saved position, on any number of ranks.

        Raises:
            ValueError: Data, seed, budget or step size changed, or the state was saved in the middle of a step.
        """
        epoch, step = int(state_dict["epoch"]), int(state_dict["step"])
        if state_dict["unfinished_micro_batches"]:
            raise ValueError(
                f"the checkpoint was saved in the middle of optimizer step {step} of epoch {epoch}, whose gradients "
                "are lost; resume from a checkpoint saved after a step."
            )
        self.epoch = epoch
        self.plan = self._plan(epoch)
        found = self._fingerprint()
        changed = [
            f"{key} (saved {state_dict.get(key)}, now {value})"
            for key, value in found.items()
            if state_dict.get(key) != value
        ]
        if changed:
            raise ValueError(
                f"cannot resume in the middle of the data, because these changed: {'; '.join(changed)}. "
                "Restore them, or start a new run from the weights alone."
            )
        self._consumed = step * self._per_step

    @property
    def _per_step(self) -> int:
        return self.micro_batches_per_step // self.world_size

    def _plan(self, epoch: int) -> Plan:
        return plan(
            self.samples.lengths,
            seed=self.seed,
            epoch=epoch,
            budget=self.budget,
            micro_batches_per_step=self.micro_batches_per_step,
        )

    def _fingerprint(self) -> dict[str, int | str]:
        return {
            "seed": self.seed,
            "budget": self.budget,
            "micro_batches_per_step": self.micro_batches_per_step,
            "index_sha256": self.samples.index.sha256,
            "plan_sha256": self.plan.sha256,
        }

    def _rows(self, epoch_plan: Plan, *, first: int) -> PackedRows:
        return packed_rows(self.samples, epoch_plan, rank=self.rank, world_size=self.world_size, first=first)


def packed_rows(
    samples: OSDSamples, epoch_plan: Plan, *, rank: int = 0, world_size: int = 1, first: int = 0
) -> PackedRows:
    """A rank's rows of a plan, from its `first` one on, each with the target tokens of its whole step."""
    bins: list[_Bin] = []
    targets: list[int] = []
    for number in range(epoch_plan.num_steps):
        step = epoch_plan.step(number)
        mine = step[rank::world_size]
        bins += mine
        targets += [int(samples.targets[np.concatenate(step)].sum())] * len(mine)
    return PackedRows(samples, bins=bins[first:], step_target_tokens=targets[first:], budget=epoch_plan.budget)


def _in_order(dataset: Dataset[_Item], num_workers: int) -> DataLoader[_Item]:
    """Already whole batches, so nothing is collated; page-locked when there is a GPU to copy them to."""
    return DataLoader(dataset, batch_size=None, num_workers=num_workers, pin_memory=torch.cuda.is_available())

"""Loaders: planned packed rows with exact resume for training; anything in fixed order for validation and test.

None of them is a `DataLoader`, so Lightning leaves their sharding alone: a rank's share follows from the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypedDict, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from theworld import __version__
from theworld.data.features.steps import LIVE, CachedSteps
from theworld.data.packing.drawn_tokens import check_drawn, fewer_world_tokens
from theworld.data.packing.memory import keep_freed_memory
from theworld.data.packing.mixture import Mixture, Samples, as_mixture
from theworld.data.packing.packed_rows import PackedRows
from theworld.data.packing.plan import Plan, plan
from theworld.data.packing.worker_signals import obey_the_parent_only, signals_wait
from theworld.types import Batch

_Item = TypeVar("_Item")


class LoaderState(TypedDict):
    """Position and fingerprints of a `PlanLoader`: plain numbers, text and dictionaries, the same on every rank."""

    epoch: int
    step: int
    unfinished_micro_batches: int
    plan_sha256: str
    made_with: str
    settings: dict[str, object]


class FixedLoader(Generic[_Item]):
    """The items of a data set in order, from the first one on at every pass (validation and test).

    Args:
        dataset: Whole batches.
        num_workers: Worker processes; 0 reads in this process.
        before_pass: Called before each pass, when the worker processes do not have the data set yet.
    """

    def __init__(self, dataset: Dataset[_Item], *, num_workers: int = 0, before_pass: Callable[[], None] | None = None):
        self.batches = _in_order(dataset, num_workers)
        self.before_pass = before_pass

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[_Item]:
        if self.before_pass is not None:
            self.before_pass()
        return iter(self.batches)


class PlanLoader:
    """A rank's share of the planned rows of training, epoch after epoch, resumable at every optimizer step.

    A batch counts as consumed when it is handed out, and the epoch advances with its last batch: Lightning never
    asks for the one after, and saves its checkpoints in between. Iterating continues from the current position.

    A sample that cannot be read is replaced by a zero-loss one and noted in `Batch.failed`.

    Args:
        samples: The samples of one source, or a mixture.
        budget: Tokens of a packed row.
        micro_batches_per_step: Rows of an optimizer step, over all ranks and all accumulation.
        seed: Seed of the plan.
        rank: This process; it takes rows `rank`, `rank + world_size`, ... of every step.
        world_size: Number of processes; must divide `micro_batches_per_step`.
        num_workers: Worker processes; 0 reads in this process.
        max_images: Most images of a packed row; None for any number.
        window: Shards that are shuffled together; None shuffles everything.
        cached: In which optimizer steps features are read in place of pixels, if the samples have them.
        repeat_steps: Every epoch is the first so many steps of epoch 0, to overfit on them; None for the whole plan.
        random_num_world_tokens: World placeholders of a sample, of which each draws one number in every epoch; limits
            still count the processor's. None: all have the processor's.

    Attributes:
        epoch: Epoch of the next batch.
        plan: Plan of that epoch.
    """

    def __init__(
        self,
        samples: Samples | Mixture,
        *,
        budget: int,
        micro_batches_per_step: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        max_images: int | None = None,
        window: int | None = None,
        cached: CachedSteps = LIVE,
        repeat_steps: int | None = None,
        random_num_world_tokens: Sequence[int] | None = None,
    ):
        if micro_batches_per_step % world_size:
            raise ValueError(
                f"micro_batches_per_step is {micro_batches_per_step}, expected a multiple of the {world_size} devices."
            )
        self.mixture = as_mixture(samples)
        self.budget = budget
        self.micro_batches_per_step = micro_batches_per_step
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.num_workers = num_workers
        self.max_images = max_images
        self.window = window
        self.cached = cached
        self.repeat_steps = repeat_steps
        self.random_num_world_tokens = random_num_world_tokens
        if random_num_world_tokens is not None:
            most = self.mixture.processor.num_world_tokens
            check_drawn(random_num_world_tokens, most=most, images=self.mixture.num_images)
        self.epoch = 0
        self._num_steps: int | None = None
        cycle = [self._plan(epoch) for epoch in range(self.mixture.cycle)]
        self._num_steps = max(made.num_steps for made in cycle)
        self.plan = cycle[0] if len(cycle) == 1 else self._plan(0)
        self._consumed = 0

    def __len__(self) -> int:
        """Batches of this rank in an epoch, the same in every epoch."""
        return self._steps * self._per_step

    def __iter__(self) -> Iterator[Batch]:
        rows = PackedRows(
            self.mixture,
            self.plan,
            rank=self.rank,
            world_size=self.world_size,
            first=self._consumed,
            replace_failures=True,
            cached=self.cached,
            first_step=self.epoch * self._steps,  # every epoch has as many
        )
        for batch in _in_order(rows, self.num_workers):
            self._consumed += 1
            is_last = self._consumed == len(self)
            if is_last:
                self.epoch += 1
                self.plan = self._plan(self.epoch)
                self._consumed = 0
            yield batch
            if is_last:
                return

    def summary(self) -> str:
        """One line: the epoch's steps, and how full its rows are."""
        rows = f"{self.plan.num_steps} steps an epoch of {self.micro_batches_per_step} rows of {self.budget} tokens"
        return f"train: {rows}, {self.plan.fill_ratio:.1%} filled"

    def state_dict(self) -> LoaderState:
        """Position and fingerprints; the same on every rank."""
        return {
            "epoch": self.epoch,
            "step": self._consumed // self._per_step,
            "unfinished_micro_batches": self._consumed % self._per_step,
            "plan_sha256": self.plan.sha256,
            "made_with": _versions(),
            "settings": self._settings(),
        }

    def load_state_dict(self, state_dict: LoaderState) -> None:
        """Continue from a saved position, on any number of ranks.

        Raises:
            ValueError: Data, shares, weights, seed, budget or step size changed, or the state was saved in the middle
                of a step.
        """
        epoch, step = state_dict["epoch"], state_dict["step"]
        if state_dict["unfinished_micro_batches"]:
            raise ValueError(
                f"the checkpoint was saved in the middle of optimizer step {step} of epoch {epoch}, whose gradients "
                "are lost; resume from a checkpoint saved after a step."
            )
        changed = _changes(state_dict["settings"], self._settings())
        if not changed:
            self.epoch, self.plan = epoch, self._plan(epoch)
            if self.plan.sha256 != state_dict["plan_sha256"]:
                changed = [f"the plan, made from the same data by {state_dict['made_with']}, now by {_versions()}"]
        if changed:
            raise ValueError(
                f"cannot resume in the middle of the data, because these changed: {'; '.join(changed)}. "
                "Restore them, or start a new run from the weights alone."
            )
        self._consumed = step * self._per_step

    def seek(self, step: int) -> None:
        """Continue from optimizer step `step` of the run, counted from 0 over all epochs."""
        self.epoch, within = divmod(step, self._steps)  # every epoch has as many
        self.plan = self._plan(self.epoch)
        self._consumed = within * self._per_step

    def plan_of(self, epoch: int) -> Plan:
        """The plan of any epoch."""
        return self.plan if epoch == self.epoch else self._plan(epoch)

    @property
    def _per_step(self) -> int:
        return self.micro_batches_per_step // self.world_size

    @property
    def _steps(self) -> int:
        """Optimizer steps of an epoch."""
        return min(self.plan.num_steps, self.repeat_steps or self.plan.num_steps)

    def _plan(self, epoch: int) -> Plan:
        epoch = 0 if self.repeat_steps else epoch
        mixture = self.mixture
        numbers = mixture.epoch(epoch, seed=self.seed)
        made = plan(
            mixture.lengths[numbers],
            images=mixture.num_images[numbers],
            groups=None if mixture.groups is None else mixture.groups[numbers],
            seed=self.seed,
            epoch=epoch,
            budget=self.budget,
            micro_batches_per_step=self.micro_batches_per_step,
            max_images=self.max_images,
            window=self.window,
            num_steps=self._num_steps,
            base_epoch=epoch % mixture.cycle,
            fewer=self._fewer(mixture.num_images[numbers]),
        )
        return made.renumbered(numbers)

    def _fewer(self, images: NDArray[np.int64]) -> Callable[[int], NDArray[np.int64]] | None:
        """By epoch: world tokens that samples of so many images have less than their lengths say."""
        choices = self.random_num_world_tokens
        if choices is None:
            return None
        most = self.mixture.processor.num_world_tokens
        return lambda epoch: fewer_world_tokens(images, choices=choices, most=most, seed=self.seed, epoch=epoch)

    def _settings(self) -> dict[str, object]:
        """What a resumed run must find unchanged."""
        settings: dict[str, object] = {
            "seed": self.seed,
            "budget": self.budget,
            "micro_batches_per_step": self.micro_batches_per_step,
            "max_images": self.max_images,
            "window": self.window,
            "sources": self.mixture.fingerprint(),
        }
        settings |= {"repeat_steps": self.repeat_steps} if self.repeat_steps else {}
        drawn = self.random_num_world_tokens
        return settings | ({} if drawn is None else {"random_num_world_tokens": list(drawn)})


def _changes(saved: Mapping[str, object], found: Mapping[str, object], prefix: str = "") -> list[str]:
    """What differs, as `name (saved ..., now ...)`; by source for what is a source's."""
    changes = []
    for key in [*found, *(key for key in saved if key not in found)]:
        before, now = saved.get(key), found.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            changes += _changes(before, now, "source " if key == "sources" else f"{prefix}{key!r} ")
        elif before != now:
            changes.append(f"{prefix}{key} (saved {_brief(before)}, now {_brief(now)})")
    return changes


def _brief(value: object) -> object:
    return "present" if isinstance(value, Mapping) else value


def _versions() -> str:
    return f"theworld {__version__} with numpy {np.__version__}"


def _in_order(dataset: Dataset[_Item], num_workers: int) -> DataLoader[_Item]:
    """Already whole batches, so nothing is collated; page-locked when there is a GPU to copy them to."""
    return _Workers(
        dataset,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
    )


class _Workers(DataLoader[_Item]):
    def __iter__(self) -> Any:
        with signals_wait():
            return super().__iter__()


def _begin_worker(worker: int) -> None:
    obey_the_parent_only()
    keep_freed_memory(worker)

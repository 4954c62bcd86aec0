"""How fast the run goes, how full its rows are, and how far that is from what the card can do."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from theworld.models.flops import elementwise_bytes, geometry_of, useful_flops
from theworld.training.cards import Card, card_of
from theworld.training.host_numbers import is_logged, log_numbers
from theworld.training.module import TheWorldModule
from theworld.types import Batch


@dataclass
class Counts:
    """What this rank trained in some time, and the least that it takes.

    Attributes:
        seconds: By the host's clock.
        steps: Optimizer steps.
        tokens: Tokens that are not padding.
        capacity: Tokens with padding.
        targets: Tokens that carry loss.
        samples: Conversations.
        flops: Useful floating-point operations (`theworld.models.flops`).
        bytes: Least traffic of element-wise work.
    """

    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0
    capacity: int = 0
    targets: int = 0
    samples: int = 0
    flops: int = 0
    bytes: int = 0

    def __iadd__(self, other: Counts) -> Counts:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    def mfu(self, card: Card) -> float:
        """Useful operations as a share of what the card could do at its peak."""
        return self.flops / self.seconds / card.flops

    def floor_ratio(self, card: Card) -> float:
        """How many times as long as the floor it took."""
        return self.seconds / card.floor_seconds(flops=self.flops, bytes=self.bytes)


class Throughput(Callback):
    """Logs how fast the run goes, every `trainer.log_every_n_steps` optimizer steps.

    - `throughput/tokens_per_second`: tokens that are not padding
    - `throughput/target_tokens_per_second`: tokens that carry loss
    - `throughput/samples_per_second`: conversations
    - `throughput/fill`: share of the token budget that is not padding, between 0 and 1
    - `throughput/mfu`: useful work as a share of the peak of the card, between 0 and 1
    - `throughput/floor_ratio`: seconds of a step over the fewest possible, at least 1

    Rates are summed over all ranks, the other three averaged. The last two need a card that `theworld.training.cards`
    knows, and take what is useful from `theworld.models.flops`. Prints how long the first step took, the first interval
    that is logged, and at the end all intervals of each stage, each as seen by the main process.

    The clock is the host's; it waits for the device when it is read, and the device is read for nothing else. The first
    step of each stage, in which layers may be compiled, does not count, nor does time in validation, nor that at the
    end of a stage as long as this callback comes before those that work there, as it does in `theworld.cli`.
    """

    def __init__(self) -> None:
        self._card: Card | None = None
        self._start: float | None = None  # of the interval; None until the next batch
        self._interval = Counts()
        self._stages: dict[str, Counts] = {}  # those whose first step is made: all their intervals
        self._step = 0  # the optimizer step that the current batch is part of

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Look the card up."""
        self._stages = {}
        self._restart(None)
        device = pl_module.device
        self._card = card_of(device)
        if self._card is None:
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
            pl_module.print(f"No throughput/mfu and no throughput/floor_ratio: the peak of {name!r} is not known")

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        """Start the clock, if it does not run, and note the step: at the end of the batch it may be the next one."""
        if self._start is None:
            self._start = time.perf_counter()
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TheWorldModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Count a micro-batch, and log when it is time."""
        self._count(pl_module, batch)
        if not pl_module.steps_after(batch_idx):
            return
        self._interval.steps += 1
        if pl_module.schedule.name(self._step) not in self._stages:
            self._finish_first_step(pl_module)
        elif is_logged(trainer, trainer.global_step):
            self._log(trainer, pl_module)
        if pl_module.finished_stage(batch_idx) is not None:
            self._restart(None)

    def on_validation_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Forget the interval that validation cuts in two."""
        self._restart(None)

    def on_train_end(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Say how fast each stage was."""
        for stage, counts in self._stages.items():
            if counts.steps:
                pl_module.print(self._summary(stage, counts))

    def _restart(self, start: float | None) -> None:
        self._interval, self._start = Counts(), start

    def _count(self, pl_module: TheWorldModule, batch: Batch) -> None:
        geometry, config = geometry_of(batch), pl_module.world.config
        trained = pl_module.schedule.stage(self._step).learning_rates.trained()
        self._interval += Counts(
            tokens=sum(geometry.document_lengths),
            capacity=batch.document_ids.numel(),
            targets=geometry.targets,
            samples=len(batch.ids),
            flops=useful_flops(config, geometry, trained).total,
            bytes=elementwise_bytes(config, geometry, trained),
        )

    def _finish_first_step(self, pl_module: TheWorldModule) -> None:
        now, start = _now(pl_module.device), self._start
        assert start is not None, "the clock starts with the first batch"
        if not self._stages:
            pl_module.print(f"first step: {now - start:.1f} s (compilation included)")
        self._stages[pl_module.schedule.name(self._step)] = Counts()
        self._restart(now)

    def _log(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        interval, now, stage = self._interval, _now(pl_module.device), pl_module.schedule.name(self._step)
        assert self._start is not None, "the clock starts with the first batch"
        interval.seconds = now - self._start
        self._restart(now)
        first = not any(counts.steps for counts in self._stages.values())
        self._stages[stage] += interval
        if first:
            pl_module.print(self._summary(stage, interval))
        counted = {"tokens": interval.tokens, "target_tokens": interval.targets, "samples": interval.samples}
        sums = {f"throughput/{name}_per_second": count / interval.seconds for name, count in counted.items()}
        means = {"throughput/fill": interval.tokens / interval.capacity}
        if self._card is not None:
            means["throughput/mfu"] = interval.mfu(self._card)
            means["throughput/floor_ratio"] = interval.floor_ratio(self._card)
        numbers = sums | {name: share / trainer.world_size for name, share in means.items()}
        log_numbers(trainer, dict(zip(numbers, _over_ranks(trainer, list(numbers.values())), strict=True)))

    def _summary(self, stage: str, counts: Counts) -> str:
        work, seconds = counts.flops / counts.steps / 1e12, counts.seconds / counts.steps
        line = f"useful {work:.4g} TFLOP a step ({stage}), {seconds:.3g} s"
        if self._card is None:
            return line
        share, ratio = counts.mfu(self._card), counts.floor_ratio(self._card)
        return f"{line}: {share:.0%} of the peak of {self._card.name}, {ratio:.2f}x the floor"


def _over_ranks(trainer: Trainer, numbers: list[float]) -> list[float]:
    """Sums over all ranks; with one, no device is asked."""
    if trainer.world_size == 1:
        return numbers
    reduced = trainer.strategy.reduce(torch.tensor(numbers, device=trainer.strategy.root_device), reduce_op="sum")
    return reduced.tolist()


def _now(device: torch.device) -> float:
    """The host's clock in seconds, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

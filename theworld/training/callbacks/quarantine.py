"""Samples that could not be read: their targets leave the loss of the step, their names go to a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from torch import distributed
from torch.optim import Optimizer

from theworld.training.events import record
from theworld.training.module import TheWorldModule
from theworld.types import Batch, FailedSample


class Quarantine(Callback):
    """Corrects the denominator of a step with failed samples on all ranks, and records them in `quarantine.jsonl`.

    The loader has put a zero-loss sample in the place of each, but the step's number of targets is the planned one. It
    is known only when the last micro-batch of a step is there how many failed on any rank; then gradient and logged
    loss are scaled by planned / remaining targets. With several ranks this takes one small exchange between hosts a
    step, over gloo. Without failures nothing is changed, bit for bit.

    The file lies in `trainer.default_root_dir`; it gets one line a failure: step, epoch, id, reason, targets. A resumed
    run appends.

    Args:
        max_failures: How many different samples may fail in a run before it is stopped.

    Attributes:
        failed: Names of the samples that failed so far, in order. Part of the checkpoint.
    """

    def __init__(self, *, max_failures: int = 100) -> None:
        if max_failures < 0:
            raise ValueError(f"found max_failures={max_failures}, expected 0 or more.")
        self.max_failures = max_failures
        self.failed: list[str] = []
        self._of_step: list[FailedSample] = []
        self._group: distributed.ProcessGroup | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Take over from the module, which alone would stop at the first failure."""
        pl_module.corrects_failures = True
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo")

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        """Collect the failures of a step, and settle them with the other ranks at its last micro-batch."""
        self._of_step += batch.failed
        if not pl_module.steps_after(batch_idx):
            return
        failures, self._of_step = self._of_everywhere(trainer), []
        lost = sum(failure.targets for failure in failures)
        remaining = batch.step_target_tokens - lost
        # A step whose every sample failed has no gradient to scale.
        pl_module.loss_correction = batch.step_target_tokens / remaining if lost and remaining > 0 else 1.0
        if failures:
            self._record(failures, trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TheWorldModule, optimizer: Optimizer) -> None:
        """Scale the accumulated gradient, before it is clipped."""
        if pl_module.loss_correction == 1.0:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(pl_module.loss_correction)

    def state_dict(self) -> dict[str, list[str]]:
        """The names so far."""
        return {"failed": self.failed}

    def load_state_dict(self, state_dict: dict[str, list[str]]) -> None:
        """Go on counting."""
        self.failed = list(state_dict["failed"])

    def _of_everywhere(self, trainer: Trainer) -> list[FailedSample]:
        """The step's failures on all ranks, in the order of ranks."""
        if trainer.world_size == 1:
            return self._of_step
        count = torch.tensor(len(self._of_step))
        distributed.all_reduce(count, group=self._group)
        if not count:
            return []
        everywhere: list[list[FailedSample]] = [[] for _ in range(trainer.world_size)]
        distributed.all_gather_object(everywhere, self._of_step, group=self._group)
        return [failure for of_rank in everywhere for failure in of_rank]

    def _record(self, failures: Sequence[FailedSample], trainer: Trainer) -> None:
        """Write them down (main process), and stop on all ranks if there are too many."""
        path = Path(trainer.default_root_dir) / "quarantine.jsonl"
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            where = {"step": trainer.global_step, "epoch": trainer.current_epoch}
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(where | asdict(failure)) + "\n" for failure in failures)
            for failure in failures:
                record(trainer.default_root_dir, "sample_quarantined", **where, **asdict(failure))
        self.failed += [name for name in dict.fromkeys(f.id for f in failures) if name not in self.failed]
        if len(self.failed) > self.max_failures:
            raise RuntimeError(
                f"found {len(self.failed)} samples that could not be read, expected at most "
                f"max_failures={self.max_failures}, the last because: {failures[-1].reason} They are listed in {path}; "
                "repair the data, or raise max_failures."
            )

"""A short run whose learning rates rise from step to step, to see which ones are too low and which too high.

Lightning's finder cannot do it: it moves the rates by a scheduler, and the module sets them anew in every step, so it
would show the loss of the schedule's own rates. It also knows one rate, where a stage has one for each group.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.optim import Optimizer

from theworld.training import optimizers
from theworld.training.module import TheWorldModule
from theworld.types import Batch

SMOOTHING = 0.9
"""Weight of the past in the smoothed loss."""
DIVERGED = 4.0
"""The sweep ends when the smoothed loss is so many times its lowest value."""


class LearningRateSweep(Callback):
    """Multiplies the first stage's peak rates by a factor that rises exponentially, and says which one to take.

    The run ends after `num_steps` optimizer steps, or when the loss runs away. Writes `learning_rate_sweep.csv` (step,
    factor, loss and smoothed loss in nats a target token) to `trainer.default_root_dir` and prints the factor where the
    smoothed loss fell fastest: multiply the rates of the stage by it. What was trained is of no use afterwards.

    Args:
        enabled: False does nothing.
        lowest: First factor.
        highest: Last factor.
        num_steps: Optimizer steps from the one to the other.
    """

    def __init__(
        self, *, enabled: bool = False, lowest: float = 0.01, highest: float = 100.0, num_steps: int = 100
    ) -> None:
        if not 0.0 < lowest < highest < math.inf:
            raise ValueError(f"found factors from {lowest} to {highest}, expected 0 < lowest < highest")
        if num_steps < 10:
            raise ValueError(f"found num_steps={num_steps}, expected at least 10 to see anything")
        self.enabled = enabled
        self.factors = [lowest * (highest / lowest) ** (step / (num_steps - 1)) for step in range(num_steps)]
        self.losses: list[float] = []

    def setup(self, trainer: Trainer, pl_module: TheWorldModule, stage: str) -> None:
        """End the run with the sweep, and refuse to save what it trains."""
        if not self.enabled or stage != "fit":
            return
        if trainer.checkpoint_callbacks:
            raise ValueError(
                "found checkpoints in a learning rate sweep, expected none: what it trains is of no use; set "
                "trainer.enable_checkpointing=false"
            )
        length = pl_module.schedule.stages[0].max_steps
        if length <= len(self.factors):
            raise ValueError(
                f"found a first stage of {length} steps, expected more than the {len(self.factors)} of the sweep; set "
                "learning_rate_sweep.num_steps or the stage's max_steps"
            )
        self.losses = []
        trainer.fit_loop.epoch_loop.max_steps = len(self.factors)

    def on_fit_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Refuse to begin anywhere but at the first step; Lightning says only now from where the run begins."""
        if self.enabled and trainer.ckpt_path is not None:
            raise ValueError(
                f"found a learning rate sweep that begins from {trainer.ckpt_path}, expected none: its factors are of "
                "the steps from the first one on; leave --ckpt_path out, or set model.base to an export"
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TheWorldModule, optimizer: Optimizer) -> None:
        """Replace the schedule's rates, which were set when the step began."""
        if self.enabled:
            peaks = pl_module.schedule.stages[0].learning_rates.trained()
            factor = self.factors[trainer.global_step]
            rates = {group: peaks.get(group, 0.0) * factor for group in pl_module.schedule.groups}
            optimizers.set_learning_rates(optimizer, rates)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TheWorldModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Note the loss, the same on all ranks, and end the run when it has run away."""
        if not self.enabled or not pl_module.steps_after(batch_idx):
            return
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        now, lowest = smoothed(self.losses)[-1], min(smoothed(self.losses))
        if not now <= DIVERGED * lowest:
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Write the table and say what to take."""
        if not self.enabled:
            return
        path = Path(trainer.default_root_dir) / "learning_rate_sweep.csv"
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(("step", "factor", "loss", "smoothed_loss"))
                rows = zip(self.factors, self.losses, smoothed(self.losses), strict=False)
                table.writerows((step, *row) for step, row in enumerate(rows))
        factor = steepest(self.factors, self.losses)
        found = "the loss never fell" if factor is None else f"the loss fell fastest at {factor:.3g} times its rates"
        peaks = pl_module.schedule.stages[0].learning_rates.trained()
        rates = "" if factor is None else ": " + ", ".join(f"{g} {rate * factor:.2g}" for g, rate in peaks.items())
        pl_module.print(f"Stage {pl_module.schedule.names[0]}: {found}{rates}. All {len(self.losses)} steps: {path}")


def smoothed(losses: Sequence[float]) -> list[float]:
    """Exponential mean with the bias of its beginning taken out (Adam's correction)."""
    mean, result = 0.0, []
    for number, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
        result.append(mean / (1.0 - SMOOTHING**number))
    return result


def steepest(factors: Sequence[float], losses: Sequence[float]) -> float | None:
    """The factor at which the smoothed loss falls fastest over the factor's logarithm; None where it never falls.

    As in Smith, "Cyclical learning rates for training neural networks" (2017), section 3.3, and Lightning's suggestion.
    """
    curve = np.array(smoothed(losses))
    curve = curve[: np.argmax(~np.isfinite(curve))] if not np.isfinite(curve).all() else curve
    if len(curve) < 3:
        return None
    slopes = np.gradient(curve, np.log(np.array(factors[: len(curve)])))
    place = int(slopes.argmin())
    return factors[place] if slopes[place] < 0 else None

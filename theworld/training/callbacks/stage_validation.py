"""Validation loss before the first stage and after each one, so that every stage shows what it was worth."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from theworld.training.module import TheWorldModule
from theworld.types import Batch


class StageValidation(Callback):
    """Measures the validation loss at stage boundaries, prints it, and logs it in nats a target token.

    Logged as `stage/<name>/val_loss_before` and `stage/<name>/val_loss_after`. A stage starts from the weights the one
    before it ended with, so one measurement serves both.

    Args:
        enabled: False measures nothing.

    Attributes:
        losses: What was measured so far: stage → `{"before": loss, "after": loss}`. Part of the checkpoint.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.losses: dict[str, dict[str, float]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Measure the untrained model, unless a checkpoint already says what it was."""
        if self._active(trainer) and trainer.global_step == 0:
            self._record(
                trainer, pl_module, before=pl_module.schedule.names[0], loss=validation_loss(trainer, pl_module)
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TheWorldModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Measure after the last optimizer step of a stage."""
        finished = pl_module.finished_stage(batch_idx)
        if finished is None or not self._active(trainer):
            return
        step, schedule = trainer.global_step, pl_module.schedule
        following = schedule.name(step) if step < schedule.total_steps else None
        self._record(trainer, pl_module, after=finished, before=following, loss=validation_loss(trainer, pl_module))
        before = self.losses[finished].get("before")
        was = f"{before:.4f}" if before is not None else "not measured"
        pl_module.print(f"Stage {finished}: validation loss {was} before, {self.losses[finished]['after']:.4f} after")

    def state_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        """The losses measured so far."""
        return {"losses": self.losses}

    def load_state_dict(self, state_dict: dict[str, dict[str, dict[str, float]]]) -> None:
        """Take over the losses measured before a resume."""
        self.losses = state_dict["losses"]

    def _active(self, trainer: Trainer) -> bool:
        """Whether there is something to measure: a datamodule without validation rows has an empty loader."""
        return self.enabled and trainer.enable_validation and len(trainer.datamodule.val_dataloader()) > 0

    def _record(
        self,
        trainer: Trainer,
        pl_module: TheWorldModule,
        *,
        loss: float,
        before: str | None = None,
        after: str | None = None,
    ) -> None:
        for when, name in (("after", after), ("before", before)):
            if name is None:
                continue
            self.losses.setdefault(name, {})[when] = loss
            for logger in trainer.loggers:
                logger.log_metrics({f"stage/{name}/val_loss_{when}": loss}, step=trainer.global_step)


def validation_loss(trainer: Trainer, pl_module: TheWorldModule) -> float:
    """Mean cross-entropy over all target tokens of the validation set, over all ranks, in nats.

    To be called by all ranks between two batches of training.
    """
    totals = torch.zeros(2, dtype=torch.float64, device=pl_module.device)
    pl_module.eval()
    with torch.no_grad():
        for batch in trainer.datamodule.val_dataloader():
            moved = trainer.strategy.batch_to_device(batch)
            with trainer.precision_plugin.val_step_context():
                output = pl_module(moved)
            totals += torch.stack([output.loss_sum.double(), totals.new_tensor(batch.num_target_tokens)])
    pl_module.train()
    loss_sum, targets = trainer.strategy.reduce(totals, reduce_op="sum").tolist()
    if not targets:
        raise ValueError("found no target token in the validation data, expected some; check data.val_path")
    return loss_sum / targets

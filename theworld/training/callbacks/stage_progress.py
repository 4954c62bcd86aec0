"""The progress bar: Lightning's, with the stage and the optimizer step of the whole run beside the loss."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from theworld.training.host_numbers import is_logged
from theworld.training.module import TheWorldModule


class StageProgressBar(RichProgressBar):
    """Shows the stage and `step/total` while fitting. Stages, not epochs, end a run, so no last epoch is shown.

    The loss is that of the first step, then of every `trainer.log_every_n_steps`-th. Lightning's own bar reads what it
    shows at every micro-batch, and to read a value is to wait for the GPU.
    """

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Begin without a loss."""
        super().on_train_start(trainer, pl_module)
        self._loss: dict[str, float] = {}
        self._loss_step = 0

    def get_metrics(self, trainer: Trainer, pl_module: TheWorldModule) -> dict[str, str | int | float]:
        """The logged metrics, after the stage and the step that is done."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if not trainer.training:
            return metrics
        done = trainer.global_step
        stage = pl_module.schedule.name(max(done - 1, 0))
        return {"stage": stage, "step": f"{done}/{trainer.max_steps}"} | self._read_loss(trainer) | metrics

    def _read_loss(self, trainer: Trainer) -> dict[str, float]:
        done = trainer.global_step
        due = not self._loss or is_logged(trainer, done)
        if due and done != self._loss_step and "train/loss" in trainer.callback_metrics:
            self._loss, self._loss_step = {"train/loss": float(trainer.callback_metrics["train/loss"])}, done
        return self._loss

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}".ljust(len(self.validation_description))

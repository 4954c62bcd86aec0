"""The progress bar: Lightning's, with the stage and the optimizer step of the whole run beside the loss."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from theworld.training.module import TheWorldModule


class StageProgressBar(RichProgressBar):
    """Shows the stage and `step/total` while fitting. Stages, not epochs, end a run, so no last epoch is shown."""

    def get_metrics(self, trainer: Trainer, pl_module: TheWorldModule) -> dict[str, str | int | float]:
        """The logged metrics, after the stage and the step that is done."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if not trainer.training:
            return metrics
        done = trainer.global_step
        stage = pl_module.schedule.name(max(done - 1, 0))
        return {"stage": stage, "step": f"{done}/{trainer.max_steps}"} | metrics

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}".ljust(len(self.validation_description))

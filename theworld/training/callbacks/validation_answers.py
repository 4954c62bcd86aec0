"""Accuracy of free-text answers during validation, so that a run shows more than its loss."""

from __future__ import annotations

from itertools import islice

import torch
from lightning.pytorch import Callback, Trainer

from theworld.evaluation.metrics import SpatialAccuracy
from theworld.training.module import TheWorldModule


class ValidationAnswers(Callback):
    """After each validation, answers the first test questions and logs `val/accuracy` and its parts.

    The parts are those of `theworld.evaluation.metrics.SpatialAccuracy`, under `val/`. Whoever chooses a checkpoint by
    them should test on other questions afterwards.

    Args:
        batches: Batches of test questions that each process answers; 0 answers none, which is the default, because
            generating costs far more than a validation loss.
    """

    def __init__(self, *, batches: int = 0) -> None:
        if batches < 0:
            raise ValueError(f"found batches={batches}, expected 0 or more; 0 answers no questions in validation")
        self.batches = batches

    def setup(self, trainer: Trainer, pl_module: TheWorldModule, stage: str) -> None:
        """Open the test questions, which fitting and validating would not."""
        if self.batches and stage in ("fit", "validate"):
            trainer.datamodule.setup("test")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Answer, score, and log what all processes found."""
        if not self.batches or trainer.sanity_checking:
            return
        metric = SpatialAccuracy().to(pl_module.device)
        for batch in islice(trainer.datamodule.test_dataloader(), self.batches):
            moved = trainer.strategy.batch_to_device(batch)
            with torch.no_grad(), trainer.precision_plugin.val_step_context():
                answers = pl_module.answer(moved)
            metric.update([answer.question for answer in answers], [answer.text for answer in answers])
        self.log_dict({f"val/{name}": value.float() for name, value in metric.compute().items()}, sync_dist=True)

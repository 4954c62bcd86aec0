"""Collects the answers of a test run, scores them, prints the table and writes every prediction to disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.distributed
from lightning.pytorch import Callback, Trainer

from theworld.evaluation.report import Prediction, Report
from theworld.training.callbacks.rendering import rendered
from theworld.training.module import TheWorldModule
from theworld.types import PromptBatch


class AnswerTable(Callback):
    """After a test run, prints `theworld.evaluation`'s table and writes two files.

    `predictions.jsonl` holds one answered question a line and `summary.json` the table's numbers; both go to the
    logger's directory, or to `trainer.default_root_dir` without a logger.

    Attributes:
        report: The report of the last test run, on rank 0.
    """

    def __init__(self) -> None:
        self.report: Report | None = None
        self._predictions: list[Prediction] = []

    def on_test_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Forget the answers of an earlier run."""
        self._predictions = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: TheWorldModule,
        outputs: Mapping[str, Sequence[Prediction]],
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the answers of a batch."""
        self._predictions.extend(outputs["predictions"])

    def on_test_end(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Score, print and write on rank 0."""
        predictions = self._gathered(trainer)
        directory = trainer.log_dir or trainer.default_root_dir  # reading log_dir is collective
        if not trainer.is_global_zero:
            return
        self.report = Report.from_predictions(predictions)
        pl_module.print(rendered(self.report.table()))
        for path in self.report.write(directory):
            pl_module.print(f"Wrote {path}")

    def _gathered(self, trainer: Trainer) -> list[Prediction]:
        """The answers of all ranks; the loader gives each rank its own questions."""
        if trainer.world_size == 1:
            return self._predictions
        gathered: list[list[Prediction]] = [[] for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(gathered, self._predictions)
        return [prediction for predictions in gathered for prediction in predictions]

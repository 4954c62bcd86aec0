"""Collects the answers of a test run, scores them, prints the table and writes every prediction to disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.distributed
from lightning.pytorch import Callback, Trainer

from theworld.evaluation.metrics import SpatialAccuracy
from theworld.evaluation.report import Prediction, Report
from theworld.training.callbacks.rendering import rendered
from theworld.training.module import TheWorldModule
from theworld.types import PromptBatch


class AnswerTable(Callback):
    """After a test run, prints `theworld.evaluation`'s table, logs its numbers and writes three files.

    `predictions.jsonl` holds one answered question a line, `scores.jsonl` what became of each, and `summary.json` the
    table's numbers; they go to the logger's directory, or to `trainer.default_root_dir` without a logger. Logged, and
    kept in `trainer.callback_metrics`, are `test/accuracy` and its parts, as `theworld.evaluation.metrics` names them.

    Attributes:
        report: The report of the last test run, on rank 0.
    """

    def __init__(self) -> None:
        self.report: Report | None = None
        self._predictions: list[Prediction] = []
        self._accuracy = SpatialAccuracy()

    def on_test_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Forget the answers of an earlier run."""
        self._predictions = []
        self._accuracy = SpatialAccuracy().to(pl_module.device)

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
        predictions = outputs["predictions"]
        self._predictions.extend(predictions)
        self._accuracy.update([p.question for p in predictions], [p.text for p in predictions])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Log what all ranks found."""
        self.log_dict({f"test/{name}": rate.float() for name, rate in self._accuracy.compute().items()}, sync_dist=True)

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

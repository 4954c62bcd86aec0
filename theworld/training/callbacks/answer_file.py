"""Writes the answers of a prediction run to disk, unscored, batch by batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from theworld.training.module import TheWorldModule
from theworld.types import PromptBatch


class AnswerFile(Callback):
    """Writes `answers.jsonl`, one answered question a line, while `theworld predict` runs.

    The file goes to the logger's directory, or to `trainer.default_root_dir` without a logger. With several ranks each
    writes its own questions, to `answers.<rank>.jsonl`. A file of an earlier run is replaced.

    Attributes:
        path: Where this rank writes; None before the first run.
    """

    def __init__(self) -> None:
        self.path: Path | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Begin an empty file."""
        directory = Path(trainer.log_dir or trainer.default_root_dir)
        directory.mkdir(parents=True, exist_ok=True)
        rank = f".{trainer.global_rank}" if trainer.world_size > 1 else ""
        self.path = directory / f"answers{rank}.jsonl"
        self.path.write_text("", encoding="utf-8")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: TheWorldModule,
        outputs: Sequence[dict[str, str]],
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append the answers of a batch."""
        assert self.path is not None, "on_predict_start comes first"
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(answer) + "\n" for answer in outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Say where they are."""
        pl_module.print(f"Wrote {self.path}")

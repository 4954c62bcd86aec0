"""`theworld fit` in a process that can be killed; one callback more writes down every loss before it is saved."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from theworld import cli

LEDGER = "losses.jsonl"


class Losses(Callback):
    """Appends step, stage and loss of every optimizer step to `losses.jsonl`; the loss as the float32 that it is."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.file = os.open(Path(trainer.default_root_dir) / LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._write({"start": trainer.global_step})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):  # type: ignore[no-untyped-def]
        if not pl_module.steps_after(batch_idx):
            return
        step = trainer.global_step
        loss = float(trainer.callback_metrics["train/loss"])
        self._write({"step": step, "stage": pl_module.schedule.name(step - 1), "loss": loss})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save({n: p.detach() for n, p in pl_module.named_parameters()}, Path(trainer.default_root_dir) / "end.pt")
        self._write({"end": trainer.global_step})

    def _write(self, entry: dict[str, object]) -> None:
        os.write(self.file, (json.dumps(entry) + "\n").encode())


def fit(*, world_size: int, arguments: list[str], log: Path) -> None:
    """`theworld fit` with `arguments`, in this process; what it prints goes to `log`."""
    del world_size
    warnings.filterwarnings("ignore")
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["theworld"]
    cli.CALLBACKS = {"losses": Losses} | cli.CALLBACKS
    cli.main(["fit", *arguments])


def entries(folder: Path) -> list[dict[str, object]]:
    """Whole lines of the ledger."""
    path = folder / LEDGER
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

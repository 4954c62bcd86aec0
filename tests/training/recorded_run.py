"""One rank of a training run that writes down what it consumed, step by step; for `tests.training.ranks`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.tiny import QUIET_TRAINER
from theworld.data.datamodule import OSDDataModule
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.module import TheWorldModule
from theworld.training.stages import LearningRates, Stage


class Ledger(Callback):
    """Appends one line a micro-batch, and one an optimizer step, before the step is saved.

    Args:
        folder: Where `ledger-<rank>.jsonl` lies; the runs of a test share it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._place = 0
        self._path = folder / "ledger.jsonl"

    def on_train_start(self, trainer, pl_module):
        self._path = self.folder / f"ledger-{trainer.global_rank}.jsonl"
        self._write(trainer, kind="start", world_size=trainer.world_size)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        place = self._place * trainer.world_size + trainer.global_rank
        self._write(trainer, kind="row", place=place, ids=batch.ids, epoch=trainer.current_epoch)
        self._place += 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.steps_after(batch_idx):
            self._write(trainer, kind="step", loss=float(trainer.callback_metrics["train/loss"]))
            self._place = 0

    def on_validation_start(self, trainer, pl_module):
        self._write(trainer, kind="validation")

    def on_train_end(self, trainer, pl_module):
        self._write(trainer, kind="end")

    def _write(self, trainer, **entry):
        with self._path.open("a") as file:
            file.write(json.dumps({"step": trainer.global_step} | entry) + "\n")


def train(
    *,
    world_size: int,
    folder: Path,
    data: dict[str, object],
    model: dict[str, object],
    micro_batches_per_step: int,
    steps: int,
    num_workers: int,
    ckpt_path: str | None = None,
    trainer: dict[str, object] | None = None,
    saver: dict[str, object] | None = None,
) -> None:
    """Train `steps` optimizer steps on this rank, saving after each or as told, and write the final weights."""
    warnings.filterwarnings("ignore")
    seed_everything(0, verbose=False)
    rates = LearningRates(world_projector=1e-2, language=1e-3)
    module = TheWorldModule(stages={"only": Stage(learning_rates=rates, max_steps=steps)}, **model)
    datamodule = OSDDataModule(micro_batches_per_step=micro_batches_per_step, num_workers=num_workers, **data)
    rule = saver or {"every_n_train_steps": 1}
    checkpoints = ModelCheckpoint(folder / "saved", filename="{step}", save_top_k=-1, **rule)
    settings = QUIET_TRAINER | {
        "devices": world_size,
        "strategy": "ddp" if world_size > 1 else "auto",
        "accumulate_grad_batches": micro_batches_per_step // world_size,
        "max_epochs": -1,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "default_root_dir": folder,
        "enable_checkpointing": True,
        "callbacks": [StageSchedule(), Quarantine(), Ledger(folder), checkpoints],
    }
    runner = Trainer(**settings | (trainer or {}))
    runner.fit(module, datamodule=datamodule, ckpt_path=ckpt_path)
    if runner.is_global_zero:
        torch.save({n: p.detach() for n, p in module.world.named_parameters()}, folder / f"weights-{steps}.pt")

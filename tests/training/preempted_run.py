"""One rank of a run that can be preempted, which writes down its losses exactly; for `tests.training.ranks`."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from tests.tiny import QUIET_TRAINER
from theworld.data.datamodule import OSDDataModule
from theworld.training.callbacks.preemption import Preemption
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories
from theworld.training.module import TheWorldModule
from theworld.training.stages import LearningRates, Stage

FIRST, SECOND = 4, 8
"""Steps of the two stages."""


class Losses(Callback):
    """Appends a line a step: its number, and its loss to the last bit."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_start(self, trainer, pl_module):
        self._write(trainer, pid=os.getpid())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.steps_after(batch_idx):
            self._write(trainer, step=trainer.global_step, loss=float(trainer.callback_metrics["train/loss"]).hex())

    def _write(self, trainer, **entry):
        with (self.folder / f"losses-{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


def train(
    *,
    world_size: int,
    folder: Path,
    data: dict[str, object],
    model: dict[str, object],
    callbacks: tuple[Callback, ...] = (),
    preemption: Preemption | None = None,
    every_n_train_steps: int = 1000,
) -> None:
    """Two stages, four micro-batches a step; goes on from the last checkpoint if there is one."""
    os.setpgrp()  # a signal to the group reaches the loader's workers, as a scheduler's would, and not the test
    warnings.filterwarnings("ignore")
    seed_everything(0, verbose=False)
    first = Stage(learning_rates=LearningRates(world_projector=1e-2), max_steps=FIRST)
    rates = LearningRates(world_projector=1e-2, language=1e-3)
    second = Stage(learning_rates=rates, max_steps=SECOND, warmup_steps=2)
    module = TheWorldModule(stages={"first": first, "second": second}, **model)
    saver = CrashSafeCheckpoint(
        folder / "saved", filename="{step}", every_n_train_steps=every_n_train_steps, save_last="link"
    )
    settings = QUIET_TRAINER | {
        "devices": world_size,
        "strategy": "ddp_find_unused_parameters_true" if world_size > 1 else "auto",
        "accumulate_grad_batches": 4 // world_size,
        "max_epochs": -1,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
        "default_root_dir": folder,
        "enable_checkpointing": True,
        "plugins": [CheckpointDirectories()],
        "callbacks": [*callbacks, StageSchedule(), Quarantine(), Losses(folder), preemption or Preemption(), saver],
    }
    datamodule = OSDDataModule(micro_batches_per_step=4, num_workers=1, **data)
    trainer = Trainer(**settings)
    trainer.fit(module, datamodule=datamodule, ckpt_path="last" if list((folder / "saved").glob("*.ckpt")) else None)
    if trainer.is_global_zero:
        torch.save({n: p.detach() for n, p in module.world.named_parameters()}, folder / "weights.pt")


def losses(folder: Path, rank: int = 0) -> dict[int, str]:
    """Loss of each step, the last time it was made."""
    lines = [json.loads(line) for line in (folder / f"losses-{rank}.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "step" in line}

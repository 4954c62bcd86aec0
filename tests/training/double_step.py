"""One optimizer step on one rank in double precision, which writes down loss and gradient; see `ranks.py`."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor, distributed

from tests.tiny import QUIET_TRAINER
from theworld.data.datamodule import OSDDataModule
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.module import TheWorldModule
from theworld.training.stages import LearningRates, Stage
from theworld.types import Batch


class DoubleModule(TheWorldModule):
    """The module with weights and pixels in float64."""

    def configure_model(self) -> None:
        super().configure_model()
        for parameter in self.world.parameters():
            parameter.data = parameter.data.double()

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        values = {field.name: getattr(batch, field.name) for field in fields(batch)}
        doubled = {n: v.double() for n, v in values.items() if isinstance(v, Tensor) and v.is_floating_point()}
        return replace(batch, **doubled)


class Damage(Callback):
    """Overwrites an image when all ranks have indexed it and none has read it."""

    def __init__(self, path: str | None):
        self.path = path

    def on_fit_start(self, trainer, pl_module):
        if self.path is not None and trainer.is_global_zero:
            Path(self.path).write_bytes(b"no image")
        trainer.strategy.barrier("damage")


class StepRecorder(Callback):
    """Loss and gradient of the first optimizer step, over all ranks."""

    def __init__(self) -> None:
        self.loss = torch.zeros((), dtype=torch.float64)
        self.gradients: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.world.named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        # Undo what the module scales up because DDP divides by it; Lightning has divided by the accumulation already.
        self.loss += outputs["loss"].detach() / trainer.world_size

    def on_train_end(self, trainer, pl_module):
        self.loss *= pl_module.loss_correction
        if trainer.world_size > 1:
            distributed.all_reduce(self.loss)


def train_one_step(
    *,
    world_size: int,
    folder: Path,
    data: dict[str, object],
    model: dict[str, object],
    micro_batches_per_step: int,
    damaged: str | None = None,
) -> None:
    """Train one step on this rank; writes loss and gradients to `rank-<rank>.pt`."""
    warnings.filterwarnings("ignore")
    torch.Tensor.float = torch.Tensor.double  # this process is ours alone; see tests/test_invariance.py
    seed_everything(0, verbose=False)
    rates = LearningRates(world_projector=1e-2, vision=1e-3, language=1e-3)
    module = DoubleModule(stages={"only": Stage(learning_rates=rates, max_steps=1)}, **model)
    recorder = StepRecorder()
    settings = QUIET_TRAINER | {
        "devices": world_size,
        "strategy": "ddp" if world_size > 1 else "auto",
        "accumulate_grad_batches": micro_batches_per_step // world_size,
        "max_epochs": -1,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
        "default_root_dir": folder,
        "callbacks": [Damage(damaged), StageSchedule(), Quarantine(), recorder],
    }
    trainer = Trainer(**settings)
    trainer.fit(module, datamodule=OSDDataModule(micro_batches_per_step=micro_batches_per_step, **data))
    logged = float(trainer.callback_metrics["train/loss"])
    record = {"loss": recorder.loss, "gradients": recorder.gradients, "logged": logged}
    torch.save(record, folder / f"rank-{trainer.global_rank}.pt")

"""A module to which one sample is poison: its loss, or its gradient alone, is no number; for non-finite steps."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from tests.tiny import QUIET_TRAINER
from theworld.data.datamodule import OSDDataModule
from theworld.models.theworld import TheWorldOutput
from theworld.training.callbacks.nonfinite import NonFiniteGuard
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.module import TheWorldModule
from theworld.training.nonfinite.look import can_skip_by_itself
from theworld.training.stages import LearningRates, Stage
from theworld.types import Batch

SAMPLE = "train-5"


class Poisoned(TheWorldModule):
    """`poison` says what becomes of `sample`; `fused` takes the optimizer that a GPU has."""

    poison: Literal["loss", "gradient", "constant", "none"] = "loss"
    fused = False
    sample = SAMPLE

    def forward(self, batch: Batch) -> TheWorldOutput:
        output = super().forward(batch)
        if self.sample not in batch.ids or self.poison == "none":
            return output
        if self.poison == "constant":
            return replace(output, loss_sum=output.loss_sum + float("inf"))  # whose gradient is none
        if self.poison == "loss":
            return replace(output, loss_sum=output.loss_sum * float("nan"))
        zero = next(p for p in self.world.parameters() if p.requires_grad).sum() * 0.0
        return replace(output, loss_sum=output.loss_sum + zero.sqrt() + torch.rand(()))  # 0 and 0 * infinity

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = super().configure_optimizers()
        if not self.fused:
            return optimizer
        fused = torch.optim.AdamW([group | {"fused": True} for group in optimizer.param_groups])
        assert can_skip_by_itself(fused)
        return fused


class Snapshots(Callback):
    """Weights and optimizer state as they are before each step and after the last one."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.states: list[dict[str, torch.Tensor]] = []
        self.ids: list[tuple[str, ...]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._take(trainer, pl_module)
        self.ids.append(batch.ids)

    def on_train_end(self, trainer, pl_module):
        self._take(trainer, pl_module)

    def _take(self, trainer, pl_module):
        self.weights.append({n: p.detach().clone() for n, p in pl_module.world.named_parameters()})
        state = trainer.optimizers[0].state
        named = {n: state[p] for n, p in pl_module.world.named_parameters() if p in state}
        self.states.append({f"{n}.{key}": value.clone() for n, kept in named.items() for key, value in kept.items()})


def train_poisoned(
    *, world_size: int, folder: Path, data: dict[str, object], model: dict[str, object], poison: str, guarded: bool
) -> None:
    """One rank; writes whether it was stopped, and the weights it was left with, to `rank-<rank>.pt`."""
    warnings.filterwarnings("ignore")
    seed_everything(0, verbose=False)
    stage = Stage(learning_rates=LearningRates(world_projector=1e-2), max_steps=20)
    module = Poisoned(stages={"only": stage}, **model)
    module.poison = poison
    settings = QUIET_TRAINER | {"devices": world_size, "strategy": "ddp", "max_epochs": -1, "limit_val_batches": 0}
    settings |= {"num_sanity_val_steps": 0, "log_every_n_steps": 1, "default_root_dir": folder, "max_steps": 6}
    trainer = Trainer(**settings, callbacks=[StageSchedule(), *([NonFiniteGuard()] if guarded else [])])
    stopped = ""
    try:
        trainer.fit(module, datamodule=OSDDataModule(micro_batches_per_step=world_size, **data))
    except RuntimeError as error:
        stopped = str(error)
    weights = {name: p.detach() for name, p in module.world.named_parameters()}
    torch.save(
        {"stopped": stopped, "weights": weights, "step": trainer.global_step}, folder / f"rank-{trainer.global_rank}.pt"
    )

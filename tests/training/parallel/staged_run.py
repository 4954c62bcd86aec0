"""One rank of a run through all stages in double precision, under any strategy; for `tests.training.ranks`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.strategies import Strategy
from torch import distributed

from tests.tiny import QUIET_TRAINER, NegativeFrames
from tests.training.double_step import DoubleModule
from theworld.data.datamodule import OSDDataModule
from theworld.training.callbacks.fixed_prompts import FixedPrompts
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_export import StageExport
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories
from theworld.training.module import TheWorldModule
from theworld.training.parallel.clipping import gradient_norm
from theworld.training.parallel.sharding import whole
from theworld.training.parallel.strategy import FullySharded
from theworld.training.stages import LearningRates, Stage

MICRO_BATCHES = 4
LENGTHS = (2, 2, 3)
"""Optimizer steps of the stages."""
STEPS = sum(LENGTHS)
CLIP = 0.05


def stages(lengths: Sequence[int] = LENGTHS, rate: float = 1.0) -> dict[str, Stage]:
    """Projector, then vision, then language with every second layer computed twice; `rate` times the usual rates."""
    projection, vision, language = lengths
    slow, fast = 1e-3 * rate, 1e-2 * rate
    return {
        "projection": Stage(learning_rates=LearningRates(world_projector=fast), max_steps=projection),
        "vision": Stage(
            learning_rates=LearningRates(world_projector=fast, vision=slow), max_steps=vision, warmup_steps=1
        ),
        "language": Stage(
            learning_rates=LearningRates(world_projector=fast, vision=slow, language=slow),
            max_steps=language,
            recompute="selective",
        ),
    }


class Recorder(Callback):
    """Loss over all ranks, and norm of the gradient before it is clipped, by optimizer step."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.norms: dict[int, float] = {}
        self._loss = torch.zeros((), dtype=torch.float64)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.world.named_parameters()
        self.norms[trainer.global_step] = float(gradient_norm([p.grad for _, p in named if p.grad is not None]))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._loss += outputs["loss"].detach() / trainer.world_size
        if not pl_module.steps_after(batch_idx):
            return
        if trainer.world_size > 1:
            distributed.all_reduce(self._loss)
        self.losses[trainer.global_step - 1] = float(self._loss)
        self._loss = torch.zeros((), dtype=torch.float64)


class AttachedSource(Callback):
    """Gives a model of several latent frames a source of them."""

    def on_fit_start(self, trainer, pl_module):
        if steps := pl_module.num_world_steps:
            pl_module.world.cosmos_encoder.source = NegativeFrames(1 + steps)


def strategy_of(name: str) -> Strategy | str:
    return FullySharded() if name == "fsdp2" else name


def run_stages(
    *,
    world_size: int,
    folder: Path,
    strategy: str,
    data: dict[str, object],
    model: dict[str, object],
    ckpt_path: str | None = None,
    double: bool = True,
    lengths: Sequence[int] = LENGTHS,
    rate: float = 1.0,
    ask_every: int = 0,
    **trainer_settings: object,
) -> None:
    """Train on this rank, saving after each step; rank 0 writes losses, norms and final weights to `record.pt`.

    Three fixed prompts are answered every `ask_every` steps, if that is not 0.
    """
    warnings.filterwarnings("ignore")
    if double:
        torch.Tensor.float = torch.Tensor.double  # this process is ours alone; see tests/test_invariance.py
    seed_everything(0, verbose=False)
    module = (DoubleModule if double else TheWorldModule)(stages=stages(lengths, rate), **model)
    recorder = Recorder()
    checkpoints = CrashSafeCheckpoint(folder / "saved", filename="{step}", save_top_k=-1, every_n_train_steps=1)
    prompts = FixedPrompts(every_n_steps=ask_every, num_prompts=3, max_new_tokens=3)
    settings = QUIET_TRAINER | {
        "devices": world_size,
        "strategy": strategy_of(strategy),
        "accumulate_grad_batches": MICRO_BATCHES // world_size,
        "gradient_clip_val": CLIP,
        "max_epochs": -1,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
        "default_root_dir": folder,
        "enable_checkpointing": True,
        "plugins": [CheckpointDirectories()],
        "callbacks": [StageSchedule(), Quarantine(), StageExport(), prompts, recorder, checkpoints, AttachedSource()],
    }
    trainer = Trainer(**settings | trainer_settings)
    datamodule = OSDDataModule(micro_batches_per_step=MICRO_BATCHES, **data)
    trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path)
    dtypes = {name: str(parameter.dtype) for name, parameter in module.world.named_parameters()}
    weights = {name: whole(parameter.detach()) for name, parameter in module.world.named_parameters()}
    record = {"losses": recorder.losses, "norms": recorder.norms, "weights": weights, "dtypes": dtypes}
    if trainer.is_global_zero:
        torch.save(record, folder / "record.pt")

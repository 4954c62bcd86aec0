"""One rank of two that save through the callback, with a fault that only one sees; for `tests.training.ranks`."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from tests.tiny import QUIET_TRAINER
from tests.training.poisoned import Poisoned
from theworld.data.datamodule import OSDDataModule
from theworld.training.callbacks.nonfinite import NonFiniteGuard
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories
from theworld.training.stages import LearningRates, Stage


class FirstStep(Callback):
    """Makes the loss of the second rank's first step no number."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        is_bad = trainer.global_step == 0 and trainer.global_rank == 1
        pl_module.poison, pl_module.sample = ("loss", batch.ids[0]) if is_bad else ("none", "")


class SeesLess(CrashSafeCheckpoint):
    """The second rank does not find the newest checkpoint, as behind a file system that is late."""

    def _find_last_checkpoints(self, trainer):
        found = super()._find_last_checkpoints(trainer)
        return {str(self._folder / "step=1.ckpt")} if found and trainer.global_rank == 1 else found


def train(
    *, world_size: int, folder: Path, data: dict[str, object], model: dict[str, object], sees: str, steps: int
) -> None:
    """Train to `steps` with a fused optimizer; writes its own end to `rank-<rank>.pt`.

    Args:
        world_size: Number of ranks.
        folder: Of the run.
        data: Settings of the data.
        model: Settings of the module.
        sees: `the same`; `less`: see `SeesLess`; `a bad step`: see `FirstStep`, with saves in the background.
        steps: Where the run ends.
    """
    warnings.filterwarnings("ignore")
    seed_everything(0, verbose=False)
    module = Poisoned(stages={"only": Stage(learning_rates=LearningRates(world_projector=1e-2), max_steps=20)}, **model)
    module.poison, module.fused = "none", True
    kind = SeesLess if sees == "less" else CrashSafeCheckpoint
    is_bad = sees == "a bad step"
    every = 1000 if is_bad else 1  # so that nothing but the reservation asks for the state
    saver = kind(folder / "saved", filename="{step}", every_n_train_steps=every, save_top_k=-1, async_save=is_bad)
    callbacks = [NonFiniteGuard(policy="skip"), StageSchedule(), *([FirstStep()] if is_bad else []), saver]
    settings = QUIET_TRAINER | {"devices": world_size, "strategy": "ddp", "max_epochs": -1, "limit_val_batches": 0}
    settings |= {"num_sanity_val_steps": 0, "log_every_n_steps": 1, "default_root_dir": folder, "max_steps": steps}
    settings |= {"enable_checkpointing": True, "plugins": [CheckpointDirectories()]}
    trainer = Trainer(**settings, callbacks=callbacks)
    stopped = ""
    try:
        datamodule = OSDDataModule(micro_batches_per_step=world_size, **data)
        trainer.fit(module, datamodule=datamodule, ckpt_path="last" if (folder / "saved").exists() else None)
    except Exception as error:
        stopped = f"{type(error).__name__}: {error}"
    weights = {name: p.detach() for name, p in module.named_parameters()}  # none before the model is loaded
    record = {"stopped": stopped, "weights": weights, "step": trainer.global_step}
    torch.save(record, folder / f"rank-{trainer.global_rank}.pt")

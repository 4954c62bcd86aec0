"""Exports the model at the end of each stage: safetensors and processor files that `from_pretrained` reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from theworld.data.indexing.table import sync_folder
from theworld.models.low_bit import state_on_true_base
from theworld.models.theworld import TheWorld
from theworld.training.events import record
from theworld.training.module import TheWorldModule
from theworld.training.parallel.sharding import is_sharded, whole_state
from theworld.types import Batch


class StageExport(Callback):
    """Writes `<trainer.default_root_dir>/<directory>/<stage>` when a stage is complete.

    The files are written to a neighbouring directory that is then renamed, so an export is never half there. An export
    of the same name, from an earlier run, is replaced. With a low-bit base the language model is exported as it was
    loaded, not as it was rounded.

    Args:
        enabled: False exports nothing.
        directory: Where the exports go, below `trainer.default_root_dir`.
    """

    def __init__(self, *, enabled: bool = True, directory: str = "export") -> None:
        self.enabled = enabled
        self.directory = directory

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TheWorldModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Export after the last optimizer step of a stage."""
        finished = pl_module.finished_stage(batch_idx)
        if not self.enabled or finished is None:
            return
        target = Path(trainer.default_root_dir) / self.directory / finished
        weights = _exported(pl_module)
        if trainer.is_global_zero:
            self._write(target, trainer, pl_module, weights)
            record(trainer.default_root_dir, "stage_exported", step=trainer.global_step, stage=finished, path=target)
        trainer.strategy.barrier("stage export")
        pl_module.print(f"Exported stage {finished} to {target}")

    def _write(
        self, target: Path, trainer: Trainer, pl_module: TheWorldModule, weights: dict[str, Tensor] | None
    ) -> None:
        unfinished, replaced = (
            target.with_name(target.name + ".unfinished"),
            target.with_name(target.name + ".replaced"),
        )
        for leftover in (unfinished, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir(parents=True)
        pl_module.world.save_pretrained(unfinished, state_dict=weights)
        trainer.datamodule.processor.save_pretrained(unfinished)
        # On the disk before it has its name: who goes on from the next checkpoint does not write it again.
        for file in filter(Path.is_file, unfinished.rglob("*")):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(unfinished)
        if target.exists():
            target.rename(replaced)
        unfinished.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)


def _exported(pl_module: TheWorldModule) -> dict[str, Tensor] | None:
    """Weights to write, if they are others than the model's own. All processes must call it."""
    if is_sharded(pl_module.world):
        return whole_state(pl_module.world)
    if not pl_module.low_bit_base:
        return None
    base = TheWorld.from_pretrained(pl_module.base, enable_world=False, dtype=pl_module.load_dtype)
    return state_on_true_base(pl_module.world, base)

"""A stage on any number of devices through Lightning: step time, tokens/s, memory, and a checkpoint saved and resumed.

    torchrun --nproc-per-node=8 experiments/scaling/run.py --strategy fsdp2 --stage language --output fsdp2_8.json
    torchrun --nproc-per-node=1 experiments/scaling/run.py --strategy fsdp2 --stage language --output fsdp2_1.json
    torchrun --nproc-per-node=8 experiments/scaling/run.py --strategy ddp --stage vision --output ddp_8.json
    torchrun --nproc-per-node=2 experiments/scaling/run.py --strategy fsdp2 --stage language --tiny --output tiny.json

Random weights at true dimensions, two samples of 5076 tokens a device and step (`experiments/speed/rows.py`). The run
saves a checkpoint before its last `AFTER` steps; a second one begins from other random weights, goes on from there, and
its losses are compared with the first one's. `--tiny` is the embedded base on CPU processes over gloo.

One device needs about 70 GB for float32 masters before activations (H200); `--optimizer adamw_bf16` 34 GB.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))

from clock import Clock, SameRow
from rows import TARGETS, TEXT, packed_row, random_model, samples_of

from theworld.assets import TINY_BASE
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.checkpoints.plugin import CheckpointDirectories
from theworld.training.module import TheWorldModule
from theworld.training.parallel.strategy import FullySharded
from theworld.training.stages import LearningRates, Stage
from theworld.types import Batch

AFTER = 3
"""Steps behind the checkpoint."""

RATES = {
    "projection": {"world_projector": 1e-5},
    "vision": {"world_projector": 1e-5, "vision": 1e-5},
    "language": {"world_projector": 1e-5, "vision": 1e-5, "language": 1e-5},
}


class Noted:
    """A strategy that notes when it begins to load a checkpoint."""

    began = 0.0

    def load_checkpoint(self, *arguments: Any, **options: Any) -> Any:
        self.began = time.perf_counter()
        return super().load_checkpoint(*arguments, **options)


class NotedFullySharded(Noted, FullySharded):
    pass


class NotedDDP(Noted, DDPStrategy):
    pass


class Saves(Callback):
    """Loss by step; saves `AFTER` steps before the end (if `path` is given), and times that and a restore."""

    def __init__(self, total: int, path: Path | None) -> None:
        self.total, self.path = total, path
        self.losses: dict[int, float] = {}
        self.save_seconds = self.restore_seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        if trainer.strategy.began:
            self.restore_seconds = time.perf_counter() - trainer.strategy.began

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if trainer.global_step > self.total - AFTER:
            self.losses[trainer.global_step] = float(outputs["loss"])
        if self.path is not None and trainer.global_step == self.total - AFTER:
            started = time.perf_counter()
            trainer.save_checkpoint(self.path)
            self.save_seconds = time.perf_counter() - started


def model_of(arguments: argparse.Namespace, seed: int) -> TheWorld:
    """Random weights at true dimensions on this process's GPU, or the tiny base on the CPU."""
    if arguments.tiny:
        model = TheWorld.from_pretrained("theworld-tiny", world_image_size=64, dtype=torch.float32).train()
    else:
        model = random_model(enable_world=True)
    known = parameter_groups(model)
    with torch.no_grad():  # other weights where the stage trains, which the checkpoint must replace
        for _, parameter in (named for group in RATES[arguments.stage] for named in known[group]):
            parameter.mul_(1.0 + 0.1 * seed)
    return model


def fit(arguments: argparse.Namespace, clock: Clock, saves: Saves, *, seed: int, resume: Path | None) -> dict[str, Any]:
    """One run; tokens of a device and step."""
    model = model_of(arguments, seed)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    text, targets = (40, 12) if arguments.tiny else (TEXT[True], TARGETS)
    batch = packed_row(model, samples_of(model, text=text, targets=targets, seed=rank))
    batch = replace(batch, step_target_tokens=batch.step_target_tokens * world_size)
    rates = LearningRates(**RATES[arguments.stage])
    module = TheWorldModule(
        base=TINY_BASE,
        stages={"stage": Stage(learning_rates=rates, max_steps=clock.total, recompute=arguments.recompute)},
        attention_backend="sdpa" if arguments.tiny else arguments.backend,
        compile_layers=not arguments.tiny,
        dtype="float32" if arguments.tiny else "bfloat16",
        optimizer=arguments.optimizer,
    )
    module.model = model
    del model
    trainer = Trainer(
        accelerator="cpu" if arguments.tiny else "gpu",
        devices=int(os.environ["LOCAL_WORLD_SIZE"]),
        num_nodes=world_size // int(os.environ["LOCAL_WORLD_SIZE"]),
        strategy=NotedFullySharded() if arguments.strategy == "fsdp2" else NotedDDP(),
        precision="32-true" if arguments.tiny else "bf16-mixed",
        gradient_clip_val=1.0,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        plugins=[CheckpointDirectories()],
        callbacks=[clock, saves, Quarantine(), StageSchedule()],
    )
    trainer.fit(module, train_dataloaders=SameRow([batch], clock.total), ckpt_path=resume)
    return {"tokens": batch.input_ids.numel(), "devices": trainer.world_size, "rank": trainer.global_rank}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", choices=["ddp", "fsdp2"], required=True)
    parser.add_argument("--stage", choices=[*RATES], required=True)
    parser.add_argument("--optimizer", default="adamw", choices=["adamw", "adamw_bf16"])
    parser.add_argument("--backend", default="flash")
    parser.add_argument("--recompute", default="full", choices=["none", "selective", "full"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("outputs/scaling"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if not arguments.tiny:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    path = arguments.folder / f"{arguments.strategy}-{arguments.stage}.ckpt"
    clock = Clock(arguments.steps)
    clock.total += AFTER
    whole = Saves(clock.total, path)
    facts = fit(arguments, clock, whole, seed=0, resume=None)
    timed = clock.result()
    gc.collect()
    torch.cuda.empty_cache()
    later = Clock(arguments.steps)
    later.total = clock.total
    resumed = Saves(clock.total, None)
    fit(arguments, later, resumed, seed=1, resume=path)
    if facts["rank"] == 0:
        result = timed | {
            "strategy": arguments.strategy,
            "stage": arguments.stage,
            "optimizer": arguments.optimizer,
            "devices": facts["devices"],
            "device": "cpu" if arguments.tiny else torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "tokens_per_second_and_device": facts["tokens"] / timed["seconds"],
            "save_seconds": whole.save_seconds,
            "restore_seconds": resumed.restore_seconds,
            "checkpoint_bytes": sum(file.stat().st_size for file in path.iterdir()),
            "losses": whole.losses,
            "losses_resumed": resumed.losses,
            "resumed_difference": max(abs(loss - whole.losses[step]) for step, loss in resumed.losses.items()),
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result, indent=1))
        shutil.rmtree(path)


if __name__ == "__main__":
    main()

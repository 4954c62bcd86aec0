"""One stage on the processes of one torchrun: speed, memory, exposed communication, losses, checkpoints.

    torchrun --nproc-per-node=2 experiments/scaling/run.py --stage language --folder /local/disk --output 2.json
    torchrun --nproc-per-node=2 experiments/scaling/run.py --stage language --folder /tmp/tiny --output tiny.json --tiny

`study.py` calls it for every size and stage. Random weights at true dimensions, rows of two samples of 5076 tokens
(`experiments/speed/rows.py`), through Lightning:

1. `--global_rows` rows a step, row r on device r modulo their number: the same global batch on any number of devices.
   Noted are the losses, the time from row to row where the optimizer steps (one row a device and step: weak scaling),
   the most memory, a trace of one row, and a checkpoint behind step `SAVED`;
2. for every checkpoint of this stage in `--folder` that `--written_on` so many devices was: other random weights,
   resumed from it; the losses of the last steps beside those of the run that wrote it.

Stages projection and vision run under DDP, language under FSDP2 with every decoder layer recomputed, which fits 80 GB.
`--tiny` is the embedded base on CPU processes over gloo.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
sys.path.insert(0, str(Path(__file__).parent))

from clock import SameRow, now
from exposed import TracedStep
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

STEPS, WARM, SAVED, TRACED = 12, 2, 8, 10
"""Optimizer steps of a run; how many come before those that are timed; the one behind which is saved, and where timing
ends; the one whose last row is traced."""

STAGES = {
    "projection": ("ddp", "none", {"world_projector": 1e-4}),
    "vision": ("ddp", "none", {"world_projector": 1e-4, "vision": 1e-5}),
    "language": ("fsdp2", "full", {"world_projector": 1e-5, "vision": 1e-5, "language": 1e-5}),
}
"""Strategy, recomputed layers and learning rates of each stage."""


class NotesStart:
    """A strategy that notes when it begins to load a checkpoint."""

    began = 0.0

    def load_checkpoint(self, *arguments: Any, **options: Any) -> Any:
        self.began = time.perf_counter()
        return super().load_checkpoint(*arguments, **options)


class NotingFullySharded(NotesStart, FullySharded):
    pass


class NotingDDP(NotesStart, DDPStrategy):
    pass


class RowTimes(Callback):
    """Seconds of each row behind which the optimizer steps, in the steps that are timed, and the most memory."""

    def __init__(self) -> None:
        self.marks: list[tuple[float | torch.cuda.Event, float | torch.cuda.Event]] = []
        self._start: float | torch.cuda.Event = 0.0
        self.first_step = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.first_step = -time.perf_counter()
        if trainer.global_step == WARM and torch.cuda.is_available() and not self.marks:
            torch.cuda.reset_peak_memory_stats()
        self._start = now()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if not pl_module.steps_after(batch_idx):
            return
        if trainer.global_step == 1:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.first_step += time.perf_counter()
        if WARM < trainer.global_step <= SAVED:
            self.marks.append((self._start, now()))

    def result(self) -> dict[str, Any]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            seconds = [start.elapsed_time(end) / 1000 for start, end in self.marks]
        else:
            seconds = [end - start for start, end in self.marks]
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        return {"seconds": median(seconds), "fastest": min(seconds), "first_step": self.first_step, "peak_gib": peak}


class Losses(Callback):
    """Loss and norm of the gradient by step, over all devices; saves once if `path` is given, and times it."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.losses: dict[int, float] = {}
        self.gradient_norms: dict[int, float] = {}
        self.save_seconds = self.restore_seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        if trainer.strategy.began:
            self.restore_seconds = time.perf_counter() - trainer.strategy.began

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if not pl_module.steps_after(batch_idx):
            return
        self.losses[trainer.global_step] = float(trainer.callback_metrics["train/loss"])
        self.gradient_norms[trainer.global_step] = float(trainer.callback_metrics["train/gradient_norm"])
        if self.path is not None and trainer.global_step == SAVED:
            started = time.perf_counter()
            trainer.save_checkpoint(self.path)
            self.save_seconds = time.perf_counter() - started


def model_of(arguments: argparse.Namespace, *, other: bool) -> TheWorld:
    """Random weights at true dimensions on this process's GPU, or the tiny base on the CPU."""
    torch.manual_seed(0)
    if arguments.tiny:
        model = TheWorld.from_pretrained(TINY_BASE, world_image_size=64, dtype=torch.float32).train()
    else:
        model = random_model(enable_world=True)
    known = parameter_groups(model)
    if other:  # where the stage trains, so that the checkpoint must replace them
        with torch.no_grad():
            for _, parameter in (named for group in STAGES[arguments.stage][2] for named in known[group]):
                parameter.mul_(1.1)
    return model


def fit(
    arguments: argparse.Namespace,
    *callbacks: Callback,
    resume: Path | None = None,
) -> Trainer:
    """One run of `STEPS` steps, or what is left of it behind a checkpoint."""
    strategy, recompute, rates = STAGES[arguments.stage]
    rank, world_size, rows = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), arguments.global_rows
    model = model_of(arguments, other=resume is not None)
    text, targets = (40, 12) if arguments.tiny else (TEXT[True], TARGETS)
    own = [
        packed_row(model, samples_of(model, text=text, targets=targets, seed=row))
        for row in range(rank, rows, world_size)
    ]
    batches = [replace(batch, step_target_tokens=batch.step_target_tokens * rows) for batch in own]
    module = TheWorldModule(
        base=TINY_BASE,
        stages={"stage": Stage(learning_rates=LearningRates(**rates), max_steps=STEPS, recompute=recompute)},
        attention_backend="sdpa" if arguments.tiny else arguments.backend,
        compile_layers=not arguments.tiny,
        dtype="float32" if arguments.tiny else "bfloat16",
        optimizer=arguments.optimizer if arguments.stage == "language" and not arguments.tiny else "adamw",
    )
    module.model = model
    model.attention_backend = module.attention_backend  # which `configure_model` sets in a model that it loads
    del model
    trainer = Trainer(
        accelerator="cpu" if arguments.tiny else "gpu",
        devices=int(os.environ["LOCAL_WORLD_SIZE"]),
        num_nodes=world_size // int(os.environ["LOCAL_WORLD_SIZE"]),
        strategy=NotingFullySharded() if strategy == "fsdp2" else NotingDDP(),
        precision="32-true" if arguments.tiny else "bf16-mixed",
        gradient_clip_val=1.0,
        accumulate_grad_batches=len(batches),
        max_epochs=-1,
        log_every_n_steps=1,
        default_root_dir=arguments.folder,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        plugins=[CheckpointDirectories()],
        callbacks=[*callbacks, Quarantine(), StageSchedule()],
    )
    trainer.fit(module, train_dataloaders=SameRow(batches, STEPS * len(batches)), ckpt_path=resume)
    gc.collect()
    torch.cuda.empty_cache()
    return trainer


def training(arguments: argparse.Namespace, path: Path) -> dict[str, Any]:
    """The run that is timed, traced and saved."""
    rows_a_device = arguments.global_rows // int(os.environ["WORLD_SIZE"])
    times, traced, noted = RowTimes(), TracedStep(TRACED * rows_a_device - 1), Losses(path)
    trainer = fit(arguments, times, traced, noted)
    result, tokens = times.result(), trainer.train_dataloader.batches[0].input_ids.numel()
    weak = result | traced.milliseconds() | {"tokens_per_second_and_device": tokens / result["seconds"]}
    size = sum(file.stat().st_size for file in path.iterdir())
    return {
        "tokens": tokens,
        "weak": weak,
        "agree": {
            "losses": noted.losses,
            "gradient_norms": noted.gradient_norms,
            "save_seconds": noted.save_seconds,
            "checkpoint_bytes": size,
        },
    }


def resumptions(arguments: argparse.Namespace) -> dict[str, Any]:
    """By the number of devices that wrote a checkpoint: the last losses, resumed from it."""
    found = {}
    for written_on in arguments.written_on:
        noted = Losses()
        fit(arguments, noted, resume=arguments.folder / f"{arguments.stage}-{written_on}.ckpt")
        found[str(written_on)] = {"losses": noted.losses, "restore_seconds": noted.restore_seconds}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=[*STAGES], required=True)
    parser.add_argument("--parts", nargs="+", default=["train"], choices=["train", "resume"])
    parser.add_argument("--written_on", nargs="+", type=int, default=[], help="devices of the checkpoints to resume")
    parser.add_argument("--global_rows", type=int, default=2)
    parser.add_argument("--optimizer", default="adamw_bf16", choices=["adamw", "adamw_bf16"], help="of stage language")
    parser.add_argument("--backend", default="flash")
    parser.add_argument("--folder", type=Path, required=True, help="where all sizes keep their checkpoints")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    world_size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if arguments.global_rows % world_size:
        parser.error(f"found --global_rows={arguments.global_rows}, expected a multiple of {world_size} processes")
    if not arguments.tiny:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    path = arguments.folder / f"{arguments.stage}-{world_size}.ckpt"
    result: dict[str, Any] = {
        "stage": arguments.stage,
        "strategy": STAGES[arguments.stage][0],
        "devices": world_size,
        "device": "cpu" if arguments.tiny else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "global_rows": arguments.global_rows,
    }
    if "train" in arguments.parts:
        result |= training(arguments, path)
    if "resume" in arguments.parts:
        result["resumed"] = resumptions(arguments)
    if rank == 0:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

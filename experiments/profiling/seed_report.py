"""The seed report's two configurations, as the seed ran them and as we do: measured, and beside its own figures.

    export PYTHONPATH=$PWD:$PWD/experiments/speed
    python -m experiments.profiling.seed_report --folder /tmp/profiles --results $OUT              # an H200: 90 GB
    python -m experiments.profiling.seed_report --folder /tmp/profiles --results /tmp/out --tiny   # two CPU cores

Random weights at true dimensions, two samples of the seed's true lengths: 4823 tokens (1 + 1 + 4096 + 1 + 256 + 468)
where only the projector trains, 725 tokens where all of Gemma does. The four reports are those of `theworld profile`.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from clock import SameRow
from lightning.pytorch import Trainer
from rows import WORLD_IDS, packed_row, samples_of
from torch import nn

from experiments.profiling.seed_style import RATE, profile_seed
from experiments.profiling.table import SEED, table
from theworld.assets import TINY_BASE
from theworld.models.configuration import TheWorldConfig
from theworld.models.theworld import TheWorld
from theworld.profiling.callback import Profile
from theworld.profiling.reports.compare import compare
from theworld.profiling.reports.schema import FILE, Report, read_report
from theworld.profiling.reports.write import write_report
from theworld.profiling.watch import Plan
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.callbacks.throughput import Throughput
from theworld.training.module import TheWorldModule
from theworld.training.stages import LearningRates, Stage
from theworld.types import Sample

TEXT, TARGETS = 468, 360
"""Text tokens of a sample, and its last tokens that carry loss."""

TRAINED = {"projection": {"world_projector"}, "gemma": {"vision", "language"}}
"""Configuration → groups that train."""

COUNTS = {"warmup_steps": 4, "active_steps": 4, "traced_steps": 1}


@dataclass(frozen=True)
class Setting:
    """Where it runs.

    Attributes:
        tiny: The tiny model on the CPU, in float32, nothing compiled.
        backend: Attention of ours.
    """

    tiny: bool
    backend: str

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.tiny else "cuda")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.tiny else torch.bfloat16


def random_model(setting: Setting, *, enable_world: bool) -> TheWorld:
    """Gemma 3 4B and Cosmos' encoder, or the tiny model, with random weights."""
    torch.manual_seed(0)
    torch.set_default_dtype(setting.dtype)
    ids = WORLD_IDS if enable_world and not setting.tiny else {}
    with setting.device:
        model = TheWorld(
            TheWorldConfig.preset("tiny" if setting.tiny else "gemma3-4b", enable_world=enable_world, **ids)
        )
    torch.set_default_dtype(torch.float32)
    nn.init.normal_(model.gemma.model.multi_modal_projector.mm_input_projection_weight, std=0.02)
    return model.train()


def profile_ours(
    model: TheWorld, samples: list[Sample], trained: set[str], setting: Setting, plan: Plan, folder: Path
) -> Report:
    """The same samples as one packed row through the module, as `theworld profile` does."""
    rates = LearningRates(**dict.fromkeys(trained, RATE))
    full = "language" in trained
    module = TheWorldModule(
        base=TINY_BASE,
        stages={"stage": Stage(learning_rates=rates, max_steps=plan.total)},
        enable_world=model.config.enable_world,
        attention_backend=setting.backend,
        compile_layers=not setting.tiny,
        dtype="float32" if setting.tiny else "bfloat16",
        optimizer="adamw_bf16" if full and not setting.tiny else "adamw",
    )
    module.model = model
    model.attention_backend = setting.backend
    trainer = Trainer(
        accelerator=setting.device.type,
        devices=1,
        precision="32-true" if setting.tiny else "bf16-mixed",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        callbacks=[Profile(output=str(folder), **COUNTS), Quarantine(), StageSchedule(), Throughput()],
    )
    trainer.fit(module, train_dataloaders=SameRow([packed_row(model, samples)], plan.total))
    return read_report(folder)


def profile_both(name: str, setting: Setting, folder: Path) -> None:
    """One configuration in both ways, each from the same random weights."""
    plan = Plan(**COUNTS)
    model = random_model(setting, enable_world=name == "projection")
    samples = samples_of(model, text=40 if setting.tiny else TEXT, targets=20 if setting.tiny else TARGETS)
    report = profile_seed(model, samples, TRAINED[name], plan, folder / f"{name}_as_the_seed")
    write_report(report, folder / f"{name}_as_the_seed")
    del model  # what it learned
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    model = random_model(setting, enable_world=name == "projection")
    profile_ours(model, samples, TRAINED[name], setting, plan, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the whole profiles, traces included")
    parser.add_argument("--results", type=Path, required=True, help="for the table, the reports and their comparison")
    parser.add_argument("--configurations", nargs="+", choices=list(TRAINED), default=list(TRAINED))
    parser.add_argument("--attention_backend", default="flash", help="of ours, on a GPU")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    setting = Setting(arguments.tiny, "sdpa" if arguments.tiny else arguments.attention_backend)
    started = time.time()
    arguments.results.mkdir(parents=True, exist_ok=True)
    places = []
    for name in arguments.configurations:
        profile_both(name, setting, arguments.folder)
        gc.collect()
        print(f"{time.time() - started:.0f} s: {name} is done", flush=True)
        places += [arguments.folder / f"{name}{how}" for how in ("_as_the_seed", "")]
        for place in places[-2:]:  # at once, for whoever is cut off
            shutil.copy(place / FILE, arguments.results / f"{place.name}.json")
    page = compare(places, output=arguments.folder / "compared")
    shutil.copy(page, arguments.results)
    text = table({place.name: read_report(place) for place in places}, SEED)
    (arguments.results / "seed_report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

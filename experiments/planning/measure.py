"""Peak memory of every configuration, through the Lightning module and `Trainer.fit`, random weights, one process.

    python -m experiments.planning.measure --output measured.json                    # one GPU of 80 GB or more
    python -m experiments.planning.measure --output tiny.json --tiny                 # two CPU cores

`max_memory_allocated` of the second and third optimizer step. Configurations with `cap_gb` run in a card of that size:
PyTorch's allocator gets what is left of it beside the memory that is used outside of PyTorch. Those with `fits=False`
have to run out of it. With `--tiny` the tiny model's peaks are those that `LiveMemory` counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from experiments.planning.configurations import CONFIGURATIONS, Configuration, chosen
from theworld.models.configuration import TheWorldConfig
from theworld.models.low_bit import quantise_language
from theworld.models.theworld import TheWorld
from theworld.profiling.plan.calibration import GB, GIB
from theworld.profiling.plan.live_memory import LiveMemory
from theworld.profiling.plan.weightless import of_shape
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.module import TheWorldModule
from theworld.types import Batch

STEPS = 3
VERSIONS = ("transformers", "lightning", "torchao")


class PeakOfLaterSteps(Callback):
    """Forgets the peak when the first optimizer step is done; notes loss and time."""

    def __init__(self, accumulate: int, memory: LiveMemory | None) -> None:
        self.accumulate, self.memory = accumulate, memory
        self.seconds: list[float] = []
        self.loss = float("nan")

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        if batch_idx == self.accumulate:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            if self.memory is not None:
                self.memory.reset()
        self.seconds.append(time.perf_counter())

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.loss = float(outputs["loss"])
        self.seconds[-1] = time.perf_counter() - self.seconds[-1]


class SameRow:
    """A loader of one row, `steps` times an epoch."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Any:
        return (self.batch for _ in range(self.steps))


def random_model(config: TheWorldConfig, *, device: str) -> TheWorld:
    """New weights in bfloat16."""
    torch.manual_seed(0)
    with torch.device(device):
        model = of_shape(config, torch.bfloat16)
    return model.train()


def as_new(model: TheWorld, config: TheWorldConfig, *, device: str) -> None:
    """In bfloat16 again, without gradients, for frames of this size."""
    model.to(device)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)
    model.config.world_image_size = config.world_image_size
    if model.cosmos_encoder is not None:
        model.cosmos_encoder.image_size = config.world_image_size
        model.cosmos_encoder.projector.latent_cells = config.latent_cells
    gc.collect()
    torch.cuda.empty_cache()


def fit(one: Configuration, module: TheWorldModule, batch: Batch, memory: LiveMemory | None) -> PeakOfLaterSteps:
    """`STEPS` optimizer steps as `theworld fit` makes them."""
    peak = PeakOfLaterSteps(one.accumulate, memory)
    folder = tempfile.TemporaryDirectory()
    trainer = Trainer(
        default_root_dir=folder.name,
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision="bf16-mixed",
        max_epochs=-1,
        accumulate_grad_batches=one.accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[peak, StageSchedule()],
    )
    with memory or nullcontext():
        if memory is not None:
            for tensor in (*module.world.parameters(), *module.world.buffers()):
                memory.hold(tensor, "weights")
        trainer.fit(module, train_dataloaders=SameRow(batch, STEPS * one.accumulate))
    folder.cleanup()
    return peak


def measure(one: Configuration, model: TheWorld, config: TheWorldConfig, *, tiny: bool) -> dict[str, Any]:
    """One configuration; `out_of_memory` says whether it could not run."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    as_new(model, config, device=device)
    if one.low_bit:
        quantise_language(model)
    run = one.run(tiny=tiny)
    module = one.module(STEPS, tiny=tiny)
    module.model = model
    model.attention_backend = module.attention_backend
    stage = module.schedule.stages[0]
    batch = run.row(stage, one.choices(config, tiny=tiny).token_budget)
    memory = LiveMemory(block_bytes=1) if tiny else None
    outside = outside_bytes() if device == "cuda" else 0
    if one.cap_gb is not None and device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (one.cap_gb * GB - outside) / total))
    started, found = time.perf_counter(), {"out_of_memory": False}
    try:
        peak = fit(one, module, batch, memory)
        found |= {"loss": peak.loss, "step_seconds": peak.seconds[-1], "first_step_seconds": peak.seconds[0]}
    except torch.OutOfMemoryError as error:
        found |= {"out_of_memory": True, "error": str(error).splitlines()[0][:300]}
    if device == "cuda":
        found |= cuda_numbers()
        torch.cuda.set_per_process_memory_fraction(1.0)
    if memory is not None:
        found["tracked_gib"] = memory.peak.bytes / GIB
    module.model = None
    return found | {"cap_gb": one.cap_gb, "planned_to_fit": one.fits, "wall_seconds": time.perf_counter() - started}


def outside_bytes() -> int:
    """What the card holds outside of PyTorch's allocator: CUDA's context, libraries and kernels."""
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()


def cuda_numbers() -> dict[str, float]:
    """Peaks since the first step, and what is used outside of PyTorch now."""
    return {
        "allocated_gib": torch.cuda.max_memory_allocated() / GIB,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB,
        "outside_gib": outside_bytes() / GIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", nargs="+", choices=[*CONFIGURATIONS])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    cuda, configurations = torch.cuda.is_available(), chosen(arguments.configurations)
    for one in configurations.values():
        one.module(STEPS, tiny=arguments.tiny)  # says now what is not installed
    # Layers that were not compiled for want of versions would keep more, and say nothing.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 4096
    results: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if cuda else "cpu",
        "card_gb": torch.cuda.get_device_properties(0).total_memory / GB if cuda else None,
        "torch": torch.__version__,
        **{name: version(name) for name in VERSIONS},
        "configurations": {},
    }
    model: TheWorld | None = None
    for name, one in configurations.items():
        config = one.model_config(tiny=arguments.tiny)
        if model is None or model.config.enable_world != config.enable_world:
            model = None
            gc.collect()
            model = random_model(config, device="cuda" if cuda else "cpu")
        found = measure(one, model, config, tiny=arguments.tiny)
        results["configurations"][name] = found
        print(f"{name}: {found}", flush=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

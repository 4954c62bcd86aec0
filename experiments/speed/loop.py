"""What Lightning's loop, logging and our callbacks add to a step: the same step raw and through `Trainer.fit`.

    python experiments/speed/loop.py --output loop.json          # true dimensions, random weights, on the GPU
    python experiments/speed/loop.py --tiny --output tiny.json   # the tiny base, on the CPU

Both train the projector on the same packed row of two samples (2 × 5076 tokens at true dimensions) with the module's
own optimizer, in one process: first raw, with the row on the device, then through the trainer, which copies the row
from page-locked memory in every step, logs every tenth and shows the progress bar. Reported are the medians of
`--steps` steps, what the second adds to the first, and on a GPU the kernels launched in a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from step import TARGETS, TEXT, random_model
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from theworld.assets import TINY_BASE
from theworld.data.packing.collator import pack
from theworld.models.execution import set_execution
from theworld.models.theworld import TheWorld
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_progress import StageProgressBar
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.callbacks.throughput import Throughput
from theworld.training.module import TheWorldModule
from theworld.training.optimizer_rules import promote, set_trainable
from theworld.training.stages import LearningRates, Stage
from theworld.types import IGNORE_INDEX, Batch, Sample

WARMUP = 5
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")


class SameRow:
    """A loader of one row, `steps` times an epoch."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return iter([self.batch] * self.steps)


class Clock(Callback):
    """Seconds between the starts of steps, and launches in the last two."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.starts: list[float | torch.cuda.Event] = []
        self.profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        self.launches = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        self.tick(batch_idx)

    def tick(self, number: int) -> None:
        """At the start of step `number`."""
        if number <= WARMUP + self.steps:
            self.starts.append(now())
        if torch.cuda.is_available() and number == WARMUP + self.steps:
            self.profiler.start()
        if torch.cuda.is_available() and number == WARMUP + self.steps + 2:
            self.profiler.stop()
            self.launches = sum(event.name in LAUNCHES for event in self.profiler.events()) // 2

    def seconds(self) -> list[float]:
        """Of the steps after the warm-up."""
        pairs = list(zip(self.starts, self.starts[1:], strict=False))[WARMUP:]
        if not torch.cuda.is_available():
            return [end - start for start, end in pairs]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in pairs]


def now() -> float | torch.cuda.Event:
    """A point in time of the device's own clock, or of the host's without one."""
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def row(model: TheWorld, *, text: int, targets: int) -> Batch:
    """Two samples [BOS][SOW] world [EOW] 20 text, image, text; the last `targets` tokens are targets."""
    config, samples = model.config, []
    vision, generator = config.gemma_config.vision_config, torch.Generator().manual_seed(0)
    high = min(200_000, config.get_text_config().vocab_size)
    for number in range(2):
        words = torch.randint(100, high, (text,), generator=generator)
        head = torch.tensor([2, config.start_of_world_token_id, config.end_of_world_token_id])
        world = torch.full((config.num_world_tokens,), config.world_token_id)
        image = torch.full((config.gemma_config.mm_tokens_per_image,), config.gemma_config.image_token_id)
        input_ids = torch.cat([head[:2], world, head[2:], words[:20], image, words[20:]])
        kept = torch.arange(len(input_ids)) >= len(input_ids) - targets
        samples.append(
            Sample(
                id=str(number),
                input_ids=input_ids,
                labels=torch.where(kept, input_ids, IGNORE_INDEX),
                token_type_ids=model.token_types(input_ids[None])[0],
                pixel_values=torch.randn(1, 3, vision.image_size, vision.image_size, generator=generator),
                world_pixel_values=torch.rand(1, 3, *[config.world_image_size] * 2, generator=generator) * 2 - 1,
            )
        )
    budget = sum(len(sample.input_ids) for sample in samples)
    batch = pack(samples, budget=budget, pad_token_id=0, step_target_tokens=2 * targets)
    return batch.pin_memory() if torch.cuda.is_available() else batch


def raw(module: TheWorldModule, batch: Batch, clock: Clock) -> None:
    """The step as plain torch, with the row on the device."""
    device = module.world.device
    set_trainable(module.world, ("world_projector",))
    promote(module.world, ("world_projector",))
    set_execution(module.world, compiled=module.compile_layers, recompute="none")
    optimizer, there = module.configure_optimizers(), batch.to(device)
    for number in range(WARMUP + clock.steps + 3):
        clock.tick(number)
        with torch.autocast(device.type, torch.bfloat16, enabled=module.load_dtype == torch.bfloat16):
            loss: Tensor = module(there).loss_sum / there.step_target_tokens
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    if arguments.tiny:
        model = TheWorld.from_pretrained(TINY_BASE, dtype=torch.float32, world_image_size=64)
    else:
        model = random_model(enable_world=True)
        model.attention_backend = "flash"
    batch = row(model, text=60 if arguments.tiny else TEXT, targets=20 if arguments.tiny else TARGETS)
    total = WARMUP + arguments.steps + 3
    module = TheWorldModule(
        base=TINY_BASE,
        stages={"projection": Stage(learning_rates=LearningRates(world_projector=1e-4), max_steps=total)},
        compile_layers=not arguments.tiny,
        dtype="float32" if arguments.tiny else "bfloat16",
    )
    module.model = model.train()
    clocks = {"raw": Clock(arguments.steps), "fit": Clock(arguments.steps)}
    raw(module, batch, clocks["raw"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=1,
            precision="32-true" if arguments.tiny else "bf16-mixed",
            max_epochs=-1,
            log_every_n_steps=10,
            logger=CSVLogger(folder),
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[clocks["fit"], Quarantine(), StageSchedule(), Throughput(), StageProgressBar()],
        )
        trainer.fit(module, train_dataloaders=SameRow(batch, total))
    medians = {name: statistics.median(clock.seconds()) for name, clock in clocks.items()}
    result = {
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "torch": torch.__version__,
        "steps": arguments.steps,
        "raw_seconds": medians["raw"],
        "fit_seconds": medians["fit"],
        "added": medians["fit"] / medians["raw"] - 1,
        "launches": {name: clock.launches for name, clock in clocks.items()},
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

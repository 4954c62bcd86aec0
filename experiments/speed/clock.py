"""Times steps by CUDA events (by the host's clock without a GPU), raw ones and those of a trainer alike."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.profiler import ProfilerActivity, profile

from theworld.training.module import TheWorldModule
from theworld.types import Batch

WARMUP = 4
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")


class SameRow:
    """A loader of one row, or of several in turn, `steps` times an epoch."""

    def __init__(self, batches: list[Batch], steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return (self.batches[number % len(self.batches)] for number in range(self.steps))


class Clock(Callback):
    """Seconds between the starts of steps, the first one's by the host, the most memory, and launches in the last two.

    Args:
        steps: How many are timed, after `WARMUP`.
        counts: Count the kernels launched in two more steps, and in two more how often the host waits for the device.
    """

    def __init__(self, steps: int, *, counts: bool = False) -> None:
        self.steps = steps
        self.total = WARMUP + steps + (5 if counts else 1)
        self.starts: list[float | torch.cuda.Event] = []
        self.first_step = 0.0
        self.launches = 0
        self.waits: list[str] = []
        self._counts = counts and torch.cuda.is_available()
        self._caught = warnings.catch_warnings(record=True)
        self._warnings: list[warnings.WarningMessage] = []
        self._profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        self.tick(batch_idx)

    def tick(self, number: int) -> None:
        """At the start of step `number`."""
        if number == 0:
            self.first_step = -time.perf_counter()
        if number == 1 and torch.cuda.is_available():
            torch.cuda.synchronize()
        if number == 1:
            self.first_step += time.perf_counter()
        if number == WARMUP and torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        if number <= WARMUP + self.steps:
            self.starts.append(now())
        if self._counts:
            self._count(number - WARMUP - self.steps)

    def _count(self, further: int) -> None:
        """At the start of the `further`th step behind the timed ones."""
        if further == 0:
            self._profiler.start()
        elif further == 2:
            self._profiler.stop()
            self.launches = sum(event.name in LAUNCHES for event in self._profiler.events()) // 2
            self._warnings = self._caught.__enter__() or []
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        elif further == 4:
            torch.cuda.set_sync_debug_mode("default")
            self._caught.__exit__(None, None, None)
            found = [w for w in self._warnings if "synchronizing" in str(w.message)]
            self.waits = [f"{Path(w.filename).name}:{w.lineno}" for w in found]

    def result(self) -> dict[str, Any]:
        """Median and fastest step in seconds, the first step, and peak memory in GiB."""
        pairs = list(zip(self.starts, self.starts[1:], strict=False))[WARMUP:]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            seconds = [start.elapsed_time(end) / 1000 for start, end in pairs]
            peak = torch.cuda.max_memory_allocated() / 2**30
        else:
            seconds, peak = [end - start for start, end in pairs], 0.0
        return {
            "seconds": statistics.median(seconds),
            "fastest": min(seconds),
            "first_step": self.first_step,
            "peak_gib": peak,
            "launches": self.launches,
            "waits_in_two_steps": self.waits,
        }


def now() -> float | torch.cuda.Event:
    """A point in time of the device's own clock, or of the host's without one."""
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event

"""Times steps by CUDA events (by the host's clock without a GPU), raw ones and those of a trainer alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

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
        launches: Count the kernels launched in two more steps.
    """

    def __init__(self, steps: int, *, launches: bool = False) -> None:
        self.steps = steps
        self.total = WARMUP + steps + (3 if launches else 1)
        self.starts: list[float | torch.cuda.Event] = []
        self.first_step = 0.0
        self.launches = 0
        self._counts = launches and torch.cuda.is_available()
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
        if self._counts and number == WARMUP + self.steps:
            self._profiler.start()
        if self._counts and number == WARMUP + self.steps + 2:
            self._profiler.stop()
            self.launches = sum(event.name in LAUNCHES for event in self._profiler.events()) // 2

    def result(self) -> dict[str, float]:
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
        }


def now() -> float | torch.cuda.Event:
    """A point in time of the device's own clock, or of the host's without one."""
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event

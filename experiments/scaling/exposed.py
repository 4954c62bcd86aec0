"""How long a GPU talks to others while it computes nothing: exposed communication, read off a trace of one step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from theworld.training.module import TheWorldModule
from theworld.types import Batch

Interval = tuple[float, float]
"""Start and end, in microseconds."""


class TracedStep(Callback):
    """Traces one step, on a GPU only.

    Args:
        step: Which batch, from 0; one optimizer step.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.kernels: list[tuple[str, Interval]] = []
        self._profiler = profile(activities=[ProfilerActivity.CUDA])

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        if batch_idx == self.step and torch.cuda.is_available():
            torch.cuda.synchronize()
            self._profiler.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if batch_idx == self.step and torch.cuda.is_available():
            torch.cuda.synchronize()
            self._profiler.stop()
            events = [event for event in self._profiler.events() if event.device_type == DeviceType.CUDA]
            self.kernels = [(event.name, (event.time_range.start, event.time_range.end)) for event in events]

    def milliseconds(self) -> dict[str, float]:
        """The step's kernels: communication, what of it no other kernel covers, and all of them; 0 without a trace."""
        return communication(self.kernels)


def communication(kernels: Iterable[tuple[str, Interval]]) -> dict[str, float]:
    """Milliseconds in which NCCL works, in which it works alone, and in which anything does.

    Args:
        kernels: Name and interval of each; those of NCCL have it in their name.
    """
    talking, computing = [], []
    for name, interval in kernels:
        (talking if "nccl" in name.lower() else computing).append(interval)
    busy, work = length(talking + computing), length(computing)
    return {
        "communication_ms": length(talking) / 1000,
        "exposed_communication_ms": (busy - work) / 1000,
        "kernels_ms": busy / 1000,
    }


def length(intervals: Iterable[Interval]) -> float:
    """Of the union."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total

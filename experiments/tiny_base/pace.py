"""Fits a number of training steps into a stretch of wall-clock time, once, early on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

MEASURE_FROM, MEASURE_TO = 100, 300


class Pace:
    """Iterates over steps; after the first few hundred it lowers `steps` to what `max_seconds` will hold.

    A learning-rate schedule reads `steps` at every step: it hardly moves in that stretch. The final number is what to
    pass as `steps`, without `max_seconds`, to repeat the run.

    Args:
        steps: Most steps to make.
        max_seconds: Wall-clock time from the first step on; None for no limit.
    """

    def __init__(self, steps: int, max_seconds: float | None) -> None:
        self.steps = steps
        self.max_seconds = max_seconds

    def __iter__(self) -> Iterator[int]:
        start = mark = now()
        step = 0
        while step < self.steps:
            yield step
            step += 1
            if step == MEASURE_FROM:
                mark = now()
            if step == MEASURE_TO and self.max_seconds is not None:
                end = now()
                rate = (MEASURE_TO - MEASURE_FROM) / (end - mark)
                self.steps = min(self.steps, step + int(max(0.0, self.max_seconds - (end - start)) * rate))
                print(f"{rate:.1f} steps/s: {self.steps} steps", flush=True)


def now() -> float:
    """Seconds on a clock, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()

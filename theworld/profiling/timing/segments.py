"""How long a step is at each place, by clocks that are read at each moment: the device's own, and the host's.

The stretches between moments are the step, without gaps, so their times add up to its length. What a stretch of the
device's time holds beside kernels, it spent waiting for the host.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from theworld.profiling.places import Place


@dataclass(frozen=True)
class Seconds:
    """Time at one place.

    Attributes:
        step: Of the step's own time: the device's on CUDA, else the host's.
        host: Until the host went on to the next place.
    """

    step: float
    host: float

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.step + other.step, self.host + other.host)

    def __truediv__(self, count: int) -> Seconds:
        return Seconds(self.step / count, self.host / count)


@dataclass(frozen=True)
class StepTime:
    """One step: how long it was, and how long at each place."""

    seconds: float
    places: Mapping[Place, Seconds]


class StepClock:
    """Times one step after the other, from one beginning to the next.

    Args:
        device: Of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: list[list[tuple[Place | None, float, torch.cuda.Event | None]]] = []

    def begin(self) -> None:
        """A step begins."""
        self._steps.append([])
        self.notice(None)

    def end(self) -> None:
        """It ends."""
        self.notice(None)

    def notice(self, place: Place | None) -> None:
        """The step goes on at `place`."""
        event = None
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        self._steps[-1].append((place, time.perf_counter(), event))

    def steps(self) -> list[StepTime]:
        """All steps that ended; waits for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return [_step(moments) for moments in self._steps]


def _step(moments: Sequence[tuple[Place | None, float, torch.cuda.Event | None]]) -> StepTime:
    places: dict[Place, Seconds] = defaultdict(lambda: Seconds(0.0, 0.0))
    whole = Seconds(0.0, 0.0)
    for (place, then, start), (_, now, stop) in zip(moments, moments[1:], strict=False):
        host = now - then
        taken = Seconds(host if start is None or stop is None else start.elapsed_time(stop) / 1000, host)
        whole += taken
        if place is not None:
            places[place] += taken
    return StepTime(whole.step, dict(places))


def middle(steps: Sequence[StepTime]) -> list[StepTime]:
    """Without the fastest and the slowest quarter: on a shared machine the slowest say more about the neighbours."""
    quarter = len(steps) // 4
    return sorted(steps, key=lambda step: step.seconds)[quarter : len(steps) - quarter]


def mean_seconds(steps: Sequence[StepTime]) -> float:
    """Of the steps in the middle."""
    return statistics.fmean(step.seconds for step in middle(steps))


def mean_places(steps: Sequence[StepTime]) -> dict[Place, Seconds]:
    """Time a step at each place, over the steps in the middle; their sum is `mean_seconds`."""
    kept = middle(steps)
    sums: dict[Place, Seconds] = defaultdict(lambda: Seconds(0.0, 0.0))
    for step in kept:
        for place, seconds in step.places.items():
            sums[place] += seconds
    return {place: seconds / len(kept) for place, seconds in sums.items()}

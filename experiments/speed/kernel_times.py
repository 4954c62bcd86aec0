"""Where a step's time goes: kernels of one variant of `step.py` by name, and how long the host is in each phase.

    python experiments/speed/kernel_times.py --variant projection_cached --output kernels.json

The host's phases are measured in steps of their own, without the profiler and without waiting for the GPU. How long the
GPU has nothing to do between kernels says how much of the step waits for the host: a step can be bound by it in its
forward pass and by the GPU behind.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1] / "scaling"))

from clock import WARMUP, Clock
from exposed import length
from rows import TARGETS, TEXT, packed_row, random_model, samples_of
from step import VARIANTS, run_ours

PROFILED = 3
"""Steps under the profiler, the last ones."""


class Phases(Callback):
    """Seconds of the host between Lightning's hooks, summed over the steps before the profiled ones."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.seconds: dict[str, float] = defaultdict(float)
        self.profiler = profile(activities=[ProfilerActivity.CUDA])
        self._last = 0.0
        self._counts = False

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx in (WARMUP, WARMUP + self.steps):
            torch.cuda.synchronize()
        if batch_idx == WARMUP + self.steps:
            self.profiler.start()
        self._counts = WARMUP <= batch_idx < WARMUP + self.steps
        self._mark("between steps" if batch_idx > WARMUP else "")

    def on_before_backward(self, trainer: Any, module: Any, loss: Any) -> None:
        self._mark("clearing gradients")

    def on_after_backward(self, trainer: Any, module: Any) -> None:
        self._mark("backward")

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self._mark("clipping and hooks")

    def on_before_zero_grad(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self._mark("forward")  # Lightning clears the gradients behind the forward pass

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._mark("optimizer")
        if batch_idx == WARMUP + self.steps + PROFILED - 1:
            torch.cuda.synchronize()
            self.profiler.stop()

    def _mark(self, phase: str) -> None:
        now = time.perf_counter()
        if self._counts and phase:
            self.seconds[phase] += now - self._last
        self._last = now

    def host(self) -> dict[str, float]:
        """Milliseconds a step of each phase."""
        return {phase: 1000 * seconds / self.steps for phase, seconds in self.seconds.items()}

    def busy_and_idle(self) -> tuple[float, float]:
        """Milliseconds a step in which the GPU runs something, and in which it waits for the next kernel."""
        events = [e.time_range for e in self.profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        busy = length((event.start, event.end) for event in events)
        whole = max(event.end for event in events) - min(event.start for event in events)
        return busy / 1000 / PROFILED, (whole - busy) / 1000 / PROFILED

    def kernels(self) -> dict[str, tuple[float, int]]:
        """Kernel name → milliseconds and launches a step, the longest first."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for event in self.profiler.events():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                sums[event.name][0] += event.device_time_total / 1000 / PROFILED
                sums[event.name][1] += 1
        ordered = sorted(sums.items(), key=lambda item: -item[1][0])
        return {name: (milliseconds, round(count / PROFILED)) for name, (milliseconds, count) in ordered}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", required=True, choices=VARIANTS)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    variant = VARIANTS[arguments.variant]
    model = random_model(enable_world=not arguments.variant.startswith("gemma"))
    samples = samples_of(model, text=TEXT[model.config.enable_world], targets=TARGETS)
    phases = Phases(arguments.steps)
    clock = Clock(arguments.steps + PROFILED - 1)
    run_ours(variant, model, clock, [packed_row(model, samples, cached=variant.cached)], phases)
    kernels, host = phases.kernels(), phases.host()
    busy, idle = phases.busy_and_idle()
    times = {"busy_ms": busy, "idle_ms": idle, "host_ms": host, "kernels": kernels}
    found = {"card": torch.cuda.get_device_name(), **times, "clock": clock.result()}
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    total, launches = (sum(part) for part in zip(*kernels.values(), strict=True))
    print(
        f"{arguments.variant}: {total:.1f} ms of kernels, {launches} launches; GPU busy {busy:.1f} ms and idle "
        f"{idle:.1f} ms a step; host {sum(host.values()):.1f} ms"
    )
    print("; ".join(f"{phase} {milliseconds:.1f} ms" for phase, milliseconds in host.items()))
    for name, (milliseconds, count) in list(kernels.items())[:45]:
        print(f"{milliseconds:8.2f} ms {count:5d} x {name[:110]}")


if __name__ == "__main__":
    main()

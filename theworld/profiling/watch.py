"""A run under observation: what is measured in which of its steps. Each tool disturbs the others, so each has its own.

| steps                        | what is attached                  | what it gives                                |
|------------------------------|-----------------------------------|----------------------------------------------|
| `warmup_steps`               | nothing                           | layers are compiled, the optimizer has state |
| `active_steps`, every second | nothing                           | the true time of a step; peaks               |
| `active_steps`, in between   | places, clocks                    | time by module                               |
| 1 + `traced_steps`           | places, `torch.profiler`          | operations, kernels, launches, waits         |
| 2                            | places, the allocator's history   | memory by module; the second one counts      |

Steps with places alternate with steps without, so that both see the same machine. Nothing here needs Lightning:
`callback.py` watches `theworld fit`, and `experiments/profiling` a loop of its own.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

from theworld.models.theworld import TheWorld
from theworld.profiling.memory.events import History, Recorded
from theworld.profiling.memory.owners import owners
from theworld.profiling.memory.recording import MemoryRecorder
from theworld.profiling.places import Place, Places
from theworld.profiling.timing.operations import Operation, operations
from theworld.profiling.timing.segments import StepClock, StepTime
from theworld.profiling.timing.trace import PlaceWork, note, work_by_place

Kind = Literal["warm-up", "plain", "placed", "traced", "recorded", "measured", "over"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which optimizer step is for what.

    Args:
        warmup_steps: Not measured.
        active_steps: Steps without any tool, and as many with clocks at every module.
        traced_steps: Steps in the trace; one more comes before them.
    """

    warmup_steps: int = 5
    active_steps: int = 10
    traced_steps: int = 2

    def __post_init__(self) -> None:
        for name, least in (("warmup_steps", 1), ("active_steps", 1), ("traced_steps", 1)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"found profile.{name}={value}, expected at least {least}")

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.warmup_steps + 2 * self.active_steps + 1 + self.traced_steps + 2

    def kind(self, step: int) -> Kind:
        """What step `step` is for."""
        step -= self.warmup_steps
        if step < 0:
            return "warm-up"
        if step < 2 * self.active_steps:
            return "placed" if step % 2 else "plain"
        step -= 2 * self.active_steps + 1 + self.traced_steps
        return "traced" if step < 0 else "recorded" if step == 0 else "measured" if step == 1 else "over"


@dataclass
class Measurements:
    """What a watched run gave.

    Attributes:
        plain: Steps without tools.
        placed: Steps with clocks.
        plain_peaks: Bytes allocated and reserved at most in those two kinds of steps; None but on CUDA.
        work: What each place had the device do, in a traced step; empty but on CUDA.
        operations: Of a traced step.
        history: Of the allocator.
        recorded: What it counted itself.
    """

    plain: list[StepTime] = field(default_factory=list)
    placed: list[StepTime] = field(default_factory=list)
    plain_peaks: tuple[int, int] | None = None
    work: dict[Place, PlaceWork] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    history: History | None = None
    recorded: Recorded | None = None


class Watch:
    """Attaches each tool when it is its turn.

    Args:
        model: That trains.
        device: Where.
        plan: Which step is for what.
        folder: For traces and the snapshot of memory; made if it is missing.
        stacks: Record where in the source blocks and operations come from.
    """

    def __init__(
        self, model: TheWorld, device: torch.device, plan: Plan, folder: Path, *, stacks: bool = False
    ) -> None:
        self.plan, self.folder = plan, folder
        self.step = -1
        self.found = Measurements()
        self.places = Places(model, self._notice)
        self._model, self._device = model, device
        self._clocks = {"plain": StepClock(device), "placed": StepClock(device)}
        self._recorder = MemoryRecorder(device, stacks=stacks)
        self._sinks: dict[Kind, Callable[[Place], None]] = {
            "placed": self._clocks["placed"].notice,
            "traced": note,
            "recorded": self._recorder.notice,
            "measured": self._recorder.notice,
        }
        self._sink: Callable[[Place], None] | None = None
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=1, active=plan.traced_steps, repeat=1),
            on_trace_ready=tensorboard_trace_handler(str(folder / "tensorboard"), use_gzip=True),
            with_stack=stacks,
            acc_events=True,
        )

    @property
    def kind(self) -> Kind:
        """What the current step is for."""
        return self.plan.kind(self.step) if self.step >= 0 else "warm-up"

    def begin_step(self, optimizer: torch.optim.Optimizer, batch: object) -> None:
        """Between two steps, when the next one's first batch is there."""
        before = self.kind
        self._end(before)
        self.step += 1
        now = self.kind
        self._sink = self._sinks.get(now)
        if self._sink is not None:
            self.places.attach()
        if before == "warm-up":
            self._reset_peaks()
        if now in self._clocks:
            self._clocks[now].begin()
        elif now == "traced" and before != "traced":
            self._profiler.start()
        elif now == "recorded":
            self._recorder.start()
            self._recorder.see(owners(self._model, optimizer, batch, self._device))
        elif now == "measured":
            self._recorder.open(owners(self._model, optimizer, batch, self._device))
        if self._sink is not None:
            self.places.begin()

    def look(self, optimizer: torch.optim.Optimizer, batch: object = None) -> None:
        """Within a step, when a batch has come or gradients are complete: what is known now of the memory."""
        if self.kind in ("recorded", "measured"):
            self._recorder.see(owners(self._model, optimizer, batch, self._device))

    def finish(self) -> Measurements:
        """After the last step."""
        self._end(self.kind)
        self.found.plain, self.found.placed = self._clocks["plain"].steps(), self._clocks["placed"].steps()
        self.step = self.plan.total
        return self.found

    def _notice(self, place: Place) -> None:
        if self._sink is not None:
            self._sink(place)

    def _end(self, kind: Kind) -> None:
        following = self.plan.kind(self.step + 1)
        if kind in self._clocks:
            self._clocks[kind].end()
        self.places.detach()
        self._sink = None
        if kind == "placed" and following != "plain":
            self._read_peaks()
        elif kind == "traced":
            self._profiler.step()
            if following != "traced":
                self._read_trace()
        elif kind == "measured":
            self.folder.mkdir(parents=True, exist_ok=True)
            snapshot = self.folder / "memory_snapshot.pickle" if self._device.type == "cuda" else None
            self.found.history, self.found.recorded = self._recorder.stop(snapshot)

    def _reset_peaks(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def _read_peaks(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            allocated = torch.cuda.max_memory_allocated(self._device)
            self.found.plain_peaks = allocated, torch.cuda.max_memory_reserved(self._device)

    def _read_trace(self) -> None:
        self._profiler.stop()
        self.found.operations = operations(self._profiler.key_averages(), self.plan.traced_steps)
        traces = (self.folder / "tensorboard").glob("*.json.gz")  # an earlier profile's may lie there as well
        written = max(traces, key=lambda path: path.stat().st_mtime_ns)
        shutil.copy(written, self.folder / "trace.json.gz")
        if self._device.type == "cuda":
            with gzip.open(written, "rt") as file:
                self.found.work = work_by_place(json.load(file)["traceEvents"], self.plan.traced_steps)

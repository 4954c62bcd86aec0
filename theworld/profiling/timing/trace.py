"""What the profiler's Chrome trace says: kernels by place, launches, and how often the host waits for the device.

Each moment of `theworld.profiling.places` is in the trace as an empty range, so a launch belongs to the place whose
range came last before it, and a kernel to the launch with its correlation number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from torch.autograd.profiler import record_function

from theworld.profiling.places import Place

PREFIX = "place "
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy", "cuStreamSynchronize")
"""Calls of CUDA's two interfaces that start a kernel, and that return when the device is done."""

UNSEEN = Place("loop", "kernels whose launch is not in the trace")

_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


class TraceArgs(TypedDict, total=False):
    """What is read of an event's arguments."""

    correlation: int


class TraceEvent(TypedDict, total=False):
    """What is read of an event."""

    cat: str
    name: str
    ts: float
    dur: float
    args: TraceArgs


@dataclass(frozen=True)
class PlaceWork:
    """What one place gave the device to do, a step.

    Attributes:
        kernel_seconds: Time of its kernels and copies, without what the ones before them were still there for.
        launches: Kernels that it launched.
        waits: Times that the host waited for the device.
    """

    kernel_seconds: float = 0.0
    launches: float = 0.0
    waits: float = 0.0


def note(place: Place) -> None:
    """Leave a moment in the trace that is being recorded."""
    with record_function(f"{PREFIX}{place}"):
        pass


def work_by_place(trace: Sequence[TraceEvent], steps: int) -> dict[Place, PlaceWork]:
    """Work that was launched between the first moment and the last one, by place.

    Args:
        trace: `traceEvents` of a Chrome trace.
        steps: How many steps are in it.

    Raises:
        ValueError: No moment is in it.
    """
    moments = sorted(
        (event["ts"], event["name"].removeprefix(PREFIX))
        for event in trace
        if event.get("cat") == "user_annotation" and event["name"].startswith(PREFIX)
    )
    if not moments:
        raise ValueError("found no place in the trace, expected some; profile steps to which `note` was attached")
    starts = [start for start, _ in moments]
    names = [name for _, name in moments]
    calls = [event for event in trace if event.get("cat") in ("cuda_runtime", "cuda_driver")]
    taken = _device_seconds(trace)
    seconds: dict[str, float] = defaultdict(float)
    launches: Counter[str] = Counter()
    waits: Counter[str] = Counter()
    for call in calls:
        number = bisect_right(starts, call["ts"]) - 1
        if not 0 <= number < len(names) - 1:  # before the first step, or behind the last
            continue
        seconds[names[number]] += taken.get(call.get("args", {}).get("correlation", -1), 0.0)
        launches[names[number]] += call["name"] in LAUNCHES
        waits[names[number]] += call["name"] in WAITS
    seen = {call["args"]["correlation"] for call in calls if "args" in call}
    if unseen := sum(time for correlation, time in taken.items() if correlation not in seen):
        names.append(str(UNSEEN))
        seconds[names[-1]] = unseen
    return {
        place_of(name): PlaceWork(seconds[name] / steps, launches[name] / steps, waits[name] / steps)
        for name in dict.fromkeys(names)
    }


def place_of(name: str) -> Place:
    """The opposite of `str(place)`."""
    phase, _, part = name.partition(": ")
    return Place(phase, part)


def _device_seconds(trace: Sequence[TraceEvent]) -> Mapping[int, float]:
    """Time of the device by launch. What two kernels share is the first one's, so that the sum is the time it was busy.

    They share where there are several streams, or where a kernel is launched before the one in front of it has ended.
    """
    work = sorted((event for event in trace if event.get("cat") in _DEVICE), key=lambda event: event["ts"])
    taken: dict[int, float] = defaultdict(float)
    busy_until = float("-inf")
    for event in work:
        end = event["ts"] + event["dur"]
        taken[event["args"]["correlation"]] += max(end - max(event["ts"], busy_until), 0.0) / 1e6
        busy_until = max(busy_until, end)
    return taken

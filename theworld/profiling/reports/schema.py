"""What `report.json` holds: plain numbers with their units in the names. What was not measured is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict, cast

SCHEMA = 1
"""Number of this layout; a file of another one is refused."""

FILE = "report.json"


class MemoryRow(TypedDict):
    """A part of the peak; `category` is one of `memory.breakdown.CATEGORIES`."""

    category: str
    part: str
    bytes: int


class MemoryTimeline(TypedDict):
    """Bytes of each category over the measured step."""

    seconds: list[float]
    bytes: dict[str, list[int]]
    peak_seconds: float


class _MemoryCounts(TypedDict):
    start_allocated_bytes: int
    peak_allocated_bytes: int
    breakdown: list[MemoryRow]
    category_bytes: dict[str, int]
    breakdown_sum_bytes: int
    timeline: MemoryTimeline


class Memory(_MemoryCounts, total=False):
    """Memory of the measured step; all below is there on CUDA only. `untouched` are the steps without these tools."""

    peak_asked_bytes: int
    peak_reserved_bytes: int
    untouched_peak_allocated_bytes: int
    untouched_peak_reserved_bytes: int


class _PlaceTime(TypedDict):
    phase: str
    part: str
    seconds: float
    host_seconds: float


class PlaceTime(_PlaceTime, total=False):
    """Time of a step at a place; what its kernels took, and how many it launched, is there on CUDA only."""

    kernel_seconds: float
    launches: float
    host_waits: float


class _Time(TypedDict):
    step_seconds: float
    step_seconds_each: list[float]
    placed_step_seconds: float
    places: list[PlaceTime]
    places_sum_seconds: float
    places_over_step: float


class Time(_Time, total=False):
    """Time of a step: without tools, with clocks, by place. `idle_seconds` to `host_waits` are there on CUDA only."""

    idle_seconds: float
    launches: float
    host_waits: float


class OperationRow(TypedDict, total=False):
    """An operation or a kernel in one step."""

    name: str
    is_kernel: bool
    calls: float
    cpu_seconds: float
    cuda_seconds: float


class ParameterRow(TypedDict):
    """A group of parameters."""

    parameters: int
    trainable_parameters: int
    bytes: int


_KINDS = {
    **dict.fromkeys(("machine", "run", "memory", "parameters", "time", "throughput"), dict),
    **dict.fromkeys(("operations", "loss"), list),
}
"""Part of a report → what it is in JSON."""


class Report(TypedDict):
    """All of it."""

    schema: int
    name: str
    machine: dict[str, str]
    run: dict[str, str | int | list[str]]
    memory: Memory
    parameters: dict[str, ParameterRow]
    time: Time
    operations: list[OperationRow]
    throughput: dict[str, float]
    loss: list[float]


def read_report(place: Path) -> Report:
    """The report of a profile.

    Args:
        place: Its folder, or the file.

    Raises:
        ValueError: There is none, it is no JSON, or of another layout.
    """
    file = place / FILE if place.is_dir() else place
    if not file.is_file():
        raise ValueError(f"found no {file}, expected the report of a profile; run `theworld profile` first")
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(
            f"found no JSON in {file} ({error}), expected a report; run `theworld profile` again"
        ) from error
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise ValueError(f"found schema {found!r} in {file}, expected {SCHEMA}; run `theworld profile` again")
    missing = sorted(Report.__required_keys__ - content.keys())
    wrong = [name for name, kind in _KINDS.items() if not isinstance(content.get(name, kind()), kind)]
    if wrong:
        names = ", ".join(wrong)
        raise ValueError(f"found {names} of another kind in {file}, expected a report; run the profile again")
    for part, layout in (("memory", Memory), ("time", Time)):
        missing += [f"{part}.{key}" for key in sorted(layout.__required_keys__ - content.get(part, {}).keys())]
    if missing:
        raise ValueError(f"found no {', '.join(missing)} in {file}, expected a whole report; run the profile again")
    return cast(Report, content)

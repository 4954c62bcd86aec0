"""The history of PyTorch's CPU allocator, as the profiler reports it, as events.

The profiler knows of a block only if it was given out while memory is recorded: a block from before has no event when
it comes back. So what lives when the measured stretch begins, and was not seen, is counted as its owners say. Memory
that PyTorch did not allocate itself (NumPy's, or what workers of a loader send) counts only if it has an owner there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from torch.profiler import ProfilerActivity, profile

from theworld.profiling.memory.events import Event, Owner, Recorded, is_sentinel

Report = TypedDict("Report", {"Addr": int, "Bytes": int, "Total Allocated": int, "Device Type": int})


class TraceEvent(TypedDict, total=False):
    """What is read of an event of the profiler's Chrome trace."""

    name: str
    ts: float
    args: Report


class CpuAllocator:
    """The CPU's allocator."""

    def __init__(self) -> None:
        self._profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._known: Mapping[int, Owner] = {}
        self._mark = 0

    def start(self) -> None:
        """Begin."""
        self._profiler.start()

    def open(self, known: Mapping[int, Owner], mark: int) -> None:
        """What lives here without having been seen is counted from `known`."""
        self._known, self._mark = known, mark

    def close(self) -> Mapping[int, Owner]:
        """There are no owners that only the allocator knows."""
        return {}

    def stop(self, snapshot: Path | None) -> Recorded:
        """End; this allocator has no snapshot."""
        self._profiler.stop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self._profiler.export_chrome_trace(str(path))
            reports = memory_reports(json.loads(path.read_text())["traceEvents"])
        return recorded(reports, self._known, self._mark)


def memory_reports(trace: Sequence[TraceEvent]) -> list[tuple[float, Report]]:
    """Microseconds and report of everything that the CPU's allocator did, in order."""
    found = [(event["ts"], event["args"]) for event in trace if event.get("name") == "[memory]"]
    return sorted(((ts, report) for ts, report in found if report["Device Type"] == 0), key=lambda pair: pair[0])


def recorded(reports: Sequence[tuple[float, Report]], known: Mapping[int, Owner], mark: int) -> Recorded:
    """Events, and the peak by the allocator's own running total.

    Args:
        reports: Of a recording in which the marks' sentinels are.
        known: Owners at the mark with which the measured stretch begins.
        mark: Its number.
    """
    events: list[Event] = []
    totals: list[int] = []  # of the allocator, since the recording began
    living: set[int] = set()
    unseen = 0  # given out in an earlier recording of this process, back in this one
    for microseconds, report in reports:
        address, size = report["Addr"], abs(report["Bytes"])
        kind: Literal["alloc", "free"] = "alloc" if report["Bytes"] > 0 else "free"
        if kind == "free" and address not in living:
            unseen += size
            continue
        (living.add if kind == "alloc" else living.remove)(address)
        events.append(Event(kind, address, size, microseconds / 1e6))
        totals.append(report["Total Allocated"] + unseen)
    first = _opening(events, mark)
    before = {address: owner.size for address, owner in known.items() if address not in _living(events[:first])}
    start = totals[0] - events[0].size
    ours = [number for number in range(first, len(events)) if not is_sentinel(events, number)]
    highest = max(totals[number] for number in ours) - start
    return Recorded(events, before, allocated_peak=sum(before.values()) + highest)


def _opening(events: Sequence[Event], mark: int) -> int:
    """Number of the first event behind the sentinel of a mark."""
    passed, number = -1, 0
    while number < len(events):
        if is_sentinel(events, number):
            passed, number = passed + 1, number + 1
            if passed == mark:
                return number + 1
        number += 1
    raise ValueError(f"found {passed + 1} sentinels in the history, expected more than {mark}: record a whole step")


def _living(events: Sequence[Event]) -> set[int]:
    living: set[int] = set()
    for event in events:
        (living.add if event.kind == "alloc" else living.discard)(event.address)
    return living

"""The history of CUDA's caching allocator (`torch.cuda.memory._record_memory_history`) as events.

An entry has the bytes that were asked for; the allocator counts them rounded up, which is the difference between
`allocated_peak` and the sum of the blocks. The history is this process's own; no snapshot is ever read from a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import torch

from theworld.profiling.memory.events import Event, Owner, Recorded

_PEAKS = {"allocated": "allocated", "asked": "requested", "reserved": "reserved"}
"""Our name of a count → CUDA's."""


class TraceEntry(TypedDict):
    """What is read of an entry of a snapshot's `device_traces`; see `torch.cuda.memory._snapshot`."""

    action: str
    addr: int
    size: int
    time_us: int


class SnapshotBlock(TypedDict):
    """What is read of a block of a segment."""

    address: int
    requested_size: int
    state: str


class Segment(TypedDict):
    """What is read of a segment."""

    device: int
    blocks: list[SnapshotBlock]


class CudaAllocator:
    """The caching allocator of one device.

    Args:
        device: Which.
        stacks: Keep Python's stack with each block, for the snapshot.
    """

    def __init__(self, device: torch.device, *, stacks: bool) -> None:
        self._device = torch.cuda.current_device() if device.index is None else device.index
        self._stacks = stacks
        self._before: dict[int, int] = {}
        self._stats: dict[str, int] = {}

    def start(self) -> None:
        """Give the workspaces of cuBLAS back, so that they are given out again in the recording, and begin."""
        torch.cuda.synchronize(self._device)
        torch._C._cuda_clearCublasWorkspaces()
        self._before = self._living()
        context = "alloc" if self._stacks else None
        torch.cuda.memory._record_memory_history("all", context=context, stacks="python", clear_history=True)

    def open(self, known: Mapping[int, Owner], mark: int) -> None:
        """The allocator's own peak begins here."""
        torch.cuda.reset_peak_memory_stats(self._device)

    def close(self) -> Mapping[int, Owner]:
        """The workspaces of cuBLAS: what does not live any more once they are given back."""
        torch.cuda.synchronize(self._device)
        self._stats = torch.cuda.memory_stats(self._device)
        living = self._living()
        torch._C._cuda_clearCublasWorkspaces()
        kept = self._living()
        return {address: Owner("workspace", "cuBLAS", size) for address, size in living.items() if address not in kept}

    def stop(self, snapshot: Path | None) -> Recorded:
        """Write the snapshot, which pytorch.org/memory_viz draws, and end."""
        if snapshot is not None:
            torch.cuda.memory._dump_snapshot(str(snapshot))
        traces = torch.cuda.memory._snapshot()["device_traces"]
        torch.cuda.memory._record_memory_history(None)
        peaks = {f"{kind}_peak": self._stats[f"{counted}_bytes.all.peak"] for kind, counted in _PEAKS.items()}
        return Recorded(list(events_of(traces[self._device])), self._before, **peaks)

    def _living(self) -> dict[int, int]:
        return dict(living_blocks(torch.cuda.memory._snapshot()["segments"], self._device))


def events_of(trace: Sequence[TraceEntry]) -> Iterator[Event]:
    """Events of one device. A block counts as given back when that is asked for, as in the allocator's own count."""
    for entry in trace:
        if entry["action"] == "alloc":
            yield Event("alloc", entry["addr"], entry["size"], entry["time_us"] / 1e6)
        elif entry["action"] == "free_requested":
            yield Event("free", entry["addr"], entry["size"], entry["time_us"] / 1e6)


def living_blocks(segments: Sequence[Segment], device: int) -> Iterator[tuple[int, int]]:
    """Address and bytes asked for of what is given out on a device."""
    for segment in segments:
        for block in segment["blocks"] if segment["device"] == device else ():
            if block["state"] == "active_allocated":
                yield block["address"], block["requested_size"]

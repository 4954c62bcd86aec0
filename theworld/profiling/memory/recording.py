"""A recording of a stretch of a run, whatever the device: the allocator's history, with our marks in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch

from theworld.profiling.memory.cpu import CpuAllocator
from theworld.profiling.memory.cuda import CudaAllocator
from theworld.profiling.memory.events import SENTINEL_BYTES, History, Mark, Owner, Recorded, replay
from theworld.profiling.places import Place


class Allocator(Protocol):
    """Source of a recording."""

    def start(self) -> None:
        """Record from here on."""

    def open(self, known: Mapping[int, Owner], mark: int) -> None:
        """Here, at the mark of that number, the measured stretch begins, with these owners."""

    def close(self) -> Mapping[int, Owner]:
        """Here it ends; gives the owners that only the allocator knows."""

    def stop(self, snapshot: Path | None) -> Recorded:
        """Record no more, and write the allocator's own file where it has one."""


class MemoryRecorder:
    """Records one stretch of a run.

    Args:
        device: Of the model.
        stacks: Whether the snapshot shows where in the source each block was given out (CUDA only).
    """

    def __init__(self, device: torch.device, *, stacks: bool = False) -> None:
        self._device = device
        self._allocator: Allocator = CudaAllocator(device, stacks=stacks) if device.type == "cuda" else CpuAllocator()
        self._marks: list[Mark] = []

    def start(self) -> None:
        """Record from here on. Start a step before the measured one, so that what that one frees is known."""
        self._allocator.start()

    def notice(self, place: Place) -> None:
        """A moment: from here on the step is at `place`."""
        self._mark(Mark(place))

    def see(self, known: Mapping[int, Owner]) -> None:
        """What is known now of the blocks that live."""
        self._mark(Mark(owners=known))

    def open(self, known: Mapping[int, Owner]) -> None:
        """The measured stretch begins, with these owners."""
        self._allocator.open(known, len(self._marks))
        self._mark(Mark(owners=known, opens=True))

    def stop(self, snapshot: Path | None = None) -> tuple[History, Recorded]:
        """The measured stretch ends, and the recording."""
        last: dict[int, Owner] = {}
        self.see(last)  # filled in next: only when workspaces are gone is it known which they were
        last.update(self._allocator.close())
        recorded = self._allocator.stop(snapshot)
        return replay(recorded.events, self._marks, recorded.before), recorded

    def _mark(self, mark: Mark) -> None:
        self._marks.append(mark)
        torch.empty(SENTINEL_BYTES, dtype=torch.uint8, device=self._device)  # given out, and back at once

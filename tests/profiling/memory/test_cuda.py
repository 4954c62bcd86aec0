"""CUDA's snapshot, made by hand in the layout that `torch.cuda.memory._snapshot` documents, as events and blocks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from theworld.profiling.memory import recording
from theworld.profiling.memory.breakdown import breakdown
from theworld.profiling.memory.cuda import events_of, living_blocks
from theworld.profiling.memory.events import SENTINEL_BYTES, Event, Mark, Owner, replay
from theworld.profiling.memory.recording import MemoryRecorder
from theworld.profiling.places import Place


def entry(action: str, addr: int, size: int, time_us: int) -> dict:
    return {"action": action, "addr": addr, "size": size, "time_us": time_us, "stream": 0, "frames": []}


def test_a_block_comes_back_when_that_is_asked_for():
    """Segments, and the moment at which a stream has let a block go, do not change how much is allocated."""
    trace = [
        entry("segment_alloc", 512, 2097152, 1_000_000),
        entry("alloc", 512, 700, 1_000_001),
        entry("free_requested", 512, 700, 1_500_000),
        entry("free_completed", 512, 700, 2_000_000),
        entry("segment_free", 512, 2097152, 3_000_000),
        entry("snapshot", 0, 0, 3_000_001),
    ]
    assert list(events_of(trace)) == [Event("alloc", 512, 700, 1.000001), Event("free", 512, 700, 1.5)]


def test_marks_are_found_between_other_entries():
    size = SENTINEL_BYTES
    trace = [
        entry("alloc", 1024, size, 1),
        entry("free_requested", 1024, size, 2),
        entry("free_completed", 1024, size, 3),
        entry("alloc", 2048, 64, 4),
    ]
    place = Place("forward", "layer")
    history = replay(list(events_of(trace)), [Mark(place)], before={})
    assert [(block.size, block.place) for block in history.blocks] == [(64, place)]


def test_what_lives_is_what_tensors_use_on_that_device():
    blocks = [
        {"address": 0, "size": 512, "requested_size": 500, "state": "active_allocated", "frames": []},
        {"address": 512, "size": 1024, "requested_size": 0, "state": "inactive"},
        {"address": 1536, "size": 512, "requested_size": 12, "state": "active_awaiting_free"},
    ]
    other = {"address": 4096, "size": 512, "requested_size": 7, "state": "active_allocated"}
    segments = [{"device": 0, "address": 0, "blocks": blocks}, {"device": 1, "address": 4096, "blocks": [other]}]
    assert dict(living_blocks(segments, 0)) == {0: 500}
    assert dict(living_blocks(segments, 1)) == {4096: 7}


class FakeCuda:
    """A caching allocator that rounds up to 512 bytes, with the calls of `torch.cuda` that a recording makes."""

    def __init__(self) -> None:
        self.trace: list[dict] = []
        self.living: dict[int, int] = {}
        self.workspace: int | None = None
        self.recording = False
        self.peaks = (0, 0)
        self._next = 1

    def alloc(self, size: int) -> int:
        address, self._next = 512 * self._next, self._next + 100
        self.living[address] = size
        self._note("alloc", address)
        rounded = sum(-(-s // 512) * 512 for s in self.living.values())
        self.peaks = max(self.peaks[0], rounded), max(self.peaks[1], sum(self.living.values()))
        return address

    def free(self, address: int) -> None:
        self._note("free_requested", address)
        self._note("free_completed", address)
        del self.living[address]

    def multiply(self) -> None:
        """A matrix product: the first one takes the workspace."""
        self.workspace = self.alloc(4096) if self.workspace is None else self.workspace

    def clear_workspaces(self) -> None:
        if self.workspace is not None:
            self.free(self.workspace)
            self.workspace = None

    def record(self, enabled: str | None, **options: object) -> None:
        self.recording = enabled is not None
        if options.get("clear_history"):
            self.trace = []

    def snapshot(self) -> dict:
        blocks = [{"address": a, "requested_size": s, "state": "active_allocated"} for a, s in self.living.items()]
        return {"segments": [{"device": 0, "blocks": blocks}], "device_traces": [list(self.trace)]}

    def stats(self, device: object) -> dict[str, int]:
        names = ("allocated_bytes.all.peak", "requested_bytes.all.peak", "reserved_bytes.all.peak")
        return dict(zip(names, (*self.peaks, 2**21), strict=True))

    def reset(self, device: object) -> None:
        self.peaks = (0, 0)

    def _note(self, action: str, address: int) -> None:
        if self.recording:
            self.trace.append(entry(action, address, self.living[address], len(self.trace)))


@pytest.fixture
def cuda(monkeypatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", fake.reset)
    monkeypatch.setattr(torch.cuda, "memory_stats", fake.stats)
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", fake.snapshot)
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", fake.record)
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", lambda path: Path(path).write_text("a pickle"))
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", fake.clear_workspaces, raising=False)
    sentinel = SimpleNamespace(empty=lambda size, **_: fake.free(fake.alloc(size)), uint8=torch.uint8)
    monkeypatch.setattr(recording, "torch", sentinel)
    return fake


def test_a_recording_finds_workspaces_weights_and_rounding(cuda, tmp_path):
    """A weight and a workspace from before; in the measured step the workspace is taken again, and kept."""
    weight = cuda.alloc(1000)
    cuda.multiply()
    recorder = MemoryRecorder(torch.device("cuda", 0))
    recorder.start()
    gradient = cuda.alloc(100)
    recorder.open({weight: Owner("weights", "language", 1000), gradient: Owner("gradients", "language", 100)})
    recorder.notice(Place("forward", "layers.0"))
    cuda.multiply()
    activation = cuda.alloc(700)
    recorder.notice(Place("backward", "layers.0"))
    cuda.free(activation)
    cuda.free(gradient)
    history, counted = recorder.stop(tmp_path / "snapshot.pickle")
    assert (counted.allocated_peak, counted.reserved_peak) == (1024 + 512 + 4096 + 1024 + 512, 2**21)
    assert counted.asked_peak == 1000 + 100 + 4096 + 700 + SENTINEL_BYTES
    assert [(row.category, row.part, row.size) for row in breakdown(history, counted.allocated_peak)] == [
        ("weights", "language", 1000),
        ("gradients", "language", 100),
        ("activations", "layers.0", 700),
        ("workspace", "cuBLAS", 4096),
        ("rounding", "allocator", 24 + 412 + 324 + 512),  # a sentinel stood on the peak
    ]
    assert (tmp_path / "snapshot.pickle").exists()
    assert not cuda.recording

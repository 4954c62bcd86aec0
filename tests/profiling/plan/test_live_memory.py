"""Bytes are counted once, from when a storage is made until it is freed, under the name that it has by then."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from theworld.profiling.plan.live_memory import LiveMemory


def test_storages_count_once_and_until_they_are_freed() -> None:
    with LiveMemory(block_bytes=1) as memory, memory.during("made", "ours"):
        first = torch.zeros(10, 10)
        view = first[2:].t()
        second = first + 1
        assert memory.live_bytes == 800
        del first
        assert memory.live_bytes == 800  # the view keeps it
        del view
        assert memory.live_bytes == 400
        second.add_(1)
        assert memory.live_bytes == 400
        memory.rename(second, "theirs")
        third = torch.zeros(5)
    assert memory.peak.bytes == 800
    assert memory.peak.categories == {"ours": 800}
    assert memory.live_bytes == 420
    del second, third
    assert memory.live_bytes == 0


def test_blocks_are_whole() -> None:
    with LiveMemory(block_bytes=512) as memory:
        kept = torch.zeros(129)
    assert memory.live_bytes == 1024
    assert kept.nbytes == 516


def test_peaks_are_told_apart_by_phase_and_name() -> None:
    with LiveMemory(block_bytes=1) as memory:
        with memory.during("first", "a"):
            kept = torch.zeros(100)
        with memory.during("second", "b"):
            torch.zeros(1000).sum()
    assert memory.peaks["first"].categories == {"a": 400}
    assert memory.peaks["second"].categories == {"b": 4004, "a": 400}
    assert memory.peak.phase == "second"
    memory.reset()
    assert memory.peak.bytes == 0
    assert len(kept) == 100


def test_tensors_without_content_count_as_if_they_had_some() -> None:
    def work() -> LiveMemory:
        with LiveMemory(block_bytes=1) as memory:
            x = torch.randn(50, 30, requires_grad=True)
            F.gelu(x @ torch.randn(30, 200)).square().sum().backward()
        return memory

    real = work()
    with FakeTensorMode():
        fake = work()
    assert fake.peak == real.peak
    assert real.peak.bytes > 4 * 50 * 200 * 4


def test_the_peak_is_what_the_allocator_saw() -> None:
    """PyTorch's own record of the CPU allocator, which also sees what kernels take inside.

    These products are large enough for that to be little: at most 3 % here, and never less than the tensors.
    """

    def work() -> None:
        x = torch.randn(400, 300, requires_grad=True)
        w = torch.randn(300, 900, requires_grad=True)
        F.gelu(x @ w).square().mean(dim=1).sum().backward()

    work()  # what libraries keep from their first call on
    with LiveMemory(block_bytes=1) as memory:
        work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    live = most = 0
    for event in events:
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    assert memory.peak.bytes <= most <= 1.03 * memory.peak.bytes

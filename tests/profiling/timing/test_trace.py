"""Kernels, launches and waits of a Chrome trace, by place; one made by hand and one of the real profiler."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from theworld.profiling.places import Place
from theworld.profiling.timing.operations import Operation, operations
from theworld.profiling.timing.trace import PREFIX, UNSEEN, PlaceWork, note, place_of, work_by_place

LAYER, NORM, LOOP = Place("forward", "layer"), Place("backward", "norm: a"), Place("loop", "x")


def moment(place: Place, ts: float) -> dict:
    return {"cat": "user_annotation", "name": f"{PREFIX}{place}", "ts": ts, "dur": 0.1}


def call(name: str, ts: float, correlation: int, cat: str = "cuda_runtime") -> dict:
    return {"cat": cat, "name": name, "ts": ts, "dur": 1.0, "args": {"correlation": correlation}}


def kernel(microseconds: float, correlation: int, cat: str = "kernel", ts: float | None = None) -> dict:
    start = 1e6 * (1 + correlation) if ts is None else ts
    return {"cat": cat, "name": "k", "ts": start, "dur": microseconds, "args": {"correlation": correlation}}


TRACE = [
    call("cudaLaunchKernel", 5.0, 1),  # before the first moment
    moment(LAYER, 10.0),
    call("cudaLaunchKernel", 11.0, 2),
    call("cuLaunchKernelEx", 12.0, 3, "cuda_driver"),
    moment(NORM, 20.0),
    call("cudaMemcpyAsync", 21.0, 4),
    call("cudaStreamSynchronize", 22.0, 5),
    moment(LAYER, 30.0),
    call("cudaLaunchKernel", 31.0, 6),
    moment(LOOP, 40.0),
    call("cudaDeviceSynchronize", 41.0, 7),  # behind the last moment: the profiler's own
    {"cat": "ac2g", "name": "ac2g", "ts": 11.0},
    *(kernel(1000.0, 1), kernel(2000.0, 2), kernel(300.0, 3), kernel(50.0, 4, "gpu_memcpy"), kernel(7.0, 6)),
]


def test_a_kernel_is_of_the_place_that_launched_it():
    """However late it runs: all of them here run behind the last moment."""
    found = work_by_place(TRACE[::-1], steps=2)
    assert found[LAYER] == PlaceWork(pytest.approx((2000 + 300 + 7) / 2e6), 3 / 2, 0)
    assert found[NORM] == PlaceWork(pytest.approx(50 / 2e6), 0, 1 / 2)
    assert found[LOOP] == PlaceWork(0, 0, 0)


def test_a_kernel_without_a_launch_is_not_lost():
    found = work_by_place([*TRACE, kernel(4e6, 77)], steps=2)
    assert found.pop(UNSEEN) == PlaceWork(2.0, 0, 0)
    assert found == work_by_place(TRACE, steps=2)


def test_two_kernels_at_a_time_are_counted_once():
    """One that begins early waits for the one before; one within another took no time of its own."""
    kernels = [kernel(100.0, 2, ts=50.0), kernel(100.0, 3, ts=90.0), kernel(5.0, 4, ts=60.0), kernel(10.0, 6, ts=200.0)]
    found = work_by_place([*(event for event in TRACE if "dur" in event and event["name"] != "k"), *kernels], steps=1)
    assert found[LAYER].kernel_seconds == pytest.approx((100 + 40 + 10) / 1e6)
    assert found[NORM].kernel_seconds == 0


def test_a_trace_without_moments_is_refused():
    with pytest.raises(ValueError, match="found no place in the trace, expected some"):
        work_by_place([call("cudaLaunchKernel", 5.0, 1)], steps=1)


def test_a_place_is_read_as_it_is_written():
    for place in (LAYER, NORM, LOOP):
        assert place_of(str(place)) == place


def test_moments_are_in_a_real_trace(tmp_path):
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for place in (LAYER, NORM, LOOP):
            note(place)
            torch.ones(3) + 1
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert list(work_by_place(events, steps=1)) == [LAYER, NORM, LOOP]
    found = {operation.name: operation for operation in operations(profiler.key_averages(), steps=3)}
    assert found["aten::add"].calls == 1
    assert not any(name.startswith(PREFIX) for name in found)


def test_operations_are_sorted_by_the_devices_time_then_the_hosts():
    def row(key: str, cpu: float, device: float, kind=DeviceType.CPU, annotation: bool = False) -> SimpleNamespace:
        times = {"self_cpu_time_total": cpu, "self_device_time_total": device}
        return SimpleNamespace(key=key, count=4, device_type=kind, is_user_annotation=annotation, **times)

    rows = [row("a", 1e6, 0), row("b", 2e6, 0), row("gemm", 0, 3e6, DeviceType.CUDA), row("ProfilerStep*", 9e6, 9e6)]
    rows += [row("Optimizer.step", 0, 9e6, DeviceType.CUDA, True)]  # around kernels that are counted
    assert operations(rows, steps=2) == [
        Operation("gemm", True, 2, 0, 1.5),
        Operation("b", False, 2, 1.0, 0),
        Operation("a", False, 2, 0.5, 0),
    ]

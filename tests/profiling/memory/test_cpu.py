"""The CPU's allocator, from reports made by hand and for real: what lives, to the byte."""

from __future__ import annotations

import pytest
import torch

from theworld.profiling.memory.breakdown import breakdown
from theworld.profiling.memory.cpu import memory_reports, recorded
from theworld.profiling.memory.events import SENTINEL_BYTES, Owner
from theworld.profiling.memory.recording import MemoryRecorder
from theworld.profiling.places import Place

CPU = torch.device("cpu")


def reports(*made: tuple[int, int], total: int = 0) -> list:
    """(address, bytes) each, as the profiler reports them."""
    found = []
    for number, (address, size) in enumerate(made):
        total += size
        report = {"Addr": address, "Bytes": size, "Total Allocated": total, "Device Type": 0}
        found.append((float(number), report))
    return found


MARK = ((9, SENTINEL_BYTES), (9, -SENTINEL_BYTES))


def test_the_peak_is_the_allocators_own_total_over_what_lived_before():
    """The total goes on from an earlier recording (5000), of which a block comes back here."""
    made = reports((1, 100), *MARK, (77, -300), (2, 50), (1, -100), total=5000)
    known = {1: Owner("gradients", "all", 100), 3: Owner("weights", "all", 1000)}
    found = recorded(made, known, mark=0)
    assert found.before == {3: 1000}  # the block at 1 was seen
    assert found.allocated_peak == 1000 + 100 + 50
    assert [(event.kind, event.size) for event in found.events[3:]] == [("alloc", 50), ("free", 100)]
    assert found.reserved_peak is None


def test_only_the_cpus_reports_are_read_in_their_order():
    late, early = ({"name": "[memory]", "ts": ts, "args": {"Device Type": 0, "Bytes": 1}} for ts in (2.0, 1.0))
    elsewhere = {"name": "[memory]", "ts": 0.0, "args": {"Device Type": 1, "Bytes": 1}}
    found = memory_reports([late, {"name": "aten::mm", "ts": 0.5}, elsewhere, early])
    assert [ts for ts, _ in found] == [1.0, 2.0]


def test_a_recording_without_its_mark_is_refused():
    with pytest.raises(ValueError, match="found 1 sentinels in the history, expected more than 1"):
        recorded(reports((1, 8), *MARK), {}, mark=1)


def test_tensors_of_a_real_recording_are_found_to_the_byte():
    """A weight from before, a gradient of the step before, two activations, of which one is gone at the peak."""
    weight = torch.empty(1000)
    recorder = MemoryRecorder(CPU)
    recorder.start()
    gradient = torch.empty(300)
    recorder.open(
        {
            weight.untyped_storage().data_ptr(): Owner("weights", "language", 4000),
            gradient.untyped_storage().data_ptr(): Owner("gradients", "language", 1200),
        }
    )
    recorder.notice(Place("forward", "layers.0"))
    gone, kept = torch.empty(10), torch.empty(20)
    del gone
    recorder.notice(Place("forward", "layers.1"))
    last = torch.empty(40)
    del last
    recorder.notice(Place("backward", "layers.1"))
    del kept, gradient
    history, counted = recorder.stop()
    rows = breakdown(history, counted.allocated_peak)
    assert counted.allocated_peak == 4000 + 1200 + 80 + 160
    assert [(row.category, row.part, row.size) for row in rows] == [  # no rounding
        ("weights", "language", 4000),
        ("gradients", "language", 1200),
        ("activations", "layers.0", 80),
        ("forward_temporaries", "layers.1", 160),
    ]

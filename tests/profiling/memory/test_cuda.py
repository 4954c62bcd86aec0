"""CUDA's snapshot, made by hand in the layout that `torch.cuda.memory._snapshot` documents, as events and blocks."""

from __future__ import annotations

from theworld.profiling.memory.cuda import events_of, living_blocks
from theworld.profiling.memory.events import SENTINEL_BYTES, Event, Mark, replay
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

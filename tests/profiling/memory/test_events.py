"""An allocator's history, made by hand: which blocks lived, what they are for, and when they were the most."""

from __future__ import annotations

import pytest

from theworld.profiling.memory.events import SENTINEL_BYTES, Block, Event, Mark, Owner, replay
from theworld.profiling.places import Place

FORWARD, BACKWARD = Place("forward", "layer"), Place("backward", "layer")
MARK = (("alloc", 9, SENTINEL_BYTES), ("free", 9, SENTINEL_BYTES))


def events(*made: tuple[str, int, int]) -> list[Event]:
    return [Event(kind, address, size, float(number)) for number, (kind, address, size) in enumerate(made)]


def test_blocks_live_between_their_events_and_belong_to_the_place_they_were_made_at():
    made = events(*MARK, ("alloc", 1, 100), *MARK, ("alloc", 2, 50), ("free", 1, 100), ("alloc", 1, 7))
    history = replay(made, [Mark(FORWARD), Mark(BACKWARD)], before={5: 1000})
    assert history.blocks == [
        Block(1000, -1, 8),
        Block(100, 2, 6, FORWARD, last=BACKWARD),
        Block(50, 5, 8, BACKWARD),
        Block(7, 7, 8, BACKWARD),  # the address of one that is gone
    ]
    assert history.totals() == [1000, 1000, 1100, 1100, 1100, 1150, 1050, 1057]
    assert history.peak() == 5
    assert [block.size for block in history.living(5)] == [1000, 100, 50]


def test_the_peak_is_that_of_the_measured_stretch():
    """The step before has the larger one, which a replay without `opens` finds."""
    made = events(*MARK, ("alloc", 1, 900), ("free", 1, 900), *MARK, ("alloc", 2, 10), ("alloc", 3, 20))
    assert replay(made, [Mark(FORWARD), Mark(opens=True)], before={}).peak() == 7
    assert replay(made, [Mark(FORWARD), Mark()], before={}).peak() == 2


def test_owners_are_of_the_block_that_lives_at_their_moment():
    """An address is used twice; both blocks had been given out before it was known what they are for."""
    weight, gradient = Owner("weights", "language", 8), Owner("gradients", "language", 8)
    made = events(("alloc", 1, 8), *MARK, ("free", 1, 8), ("alloc", 1, 8), *MARK)
    history = replay(made, [Mark(owners={1: weight}), Mark(owners={1: gradient, 77: weight})], before={})
    assert [block.owner for block in history.blocks] == [weight, gradient]


def test_owners_that_are_filled_in_later_count():
    known: dict[int, Owner] = {}
    mark = Mark(owners=known)
    known[1] = Owner("workspace", "cuBLAS", 8)
    assert replay(events(("alloc", 1, 8), *MARK, ("free", 1, 8)), [mark], before={}).blocks[0].owner is known[1]


def test_a_tensor_of_the_size_of_a_sentinel_is_none():
    """What is given out and comes back later, or elsewhere, is a block."""
    size = SENTINEL_BYTES
    made = events(("alloc", 1, size), ("alloc", 2, size), ("free", 1, size), *MARK)
    assert [block.size for block in replay(made, [Mark(FORWARD)], before={}).blocks] == [size, size]


def test_a_history_with_holes_is_refused():
    with pytest.raises(ValueError, match=r"found that 8 bytes at 0x1 came back, expected a block that lives there"):
        replay(events(("free", 1, 8)), [], before={})
    with pytest.raises(ValueError, match="found 1 sentinels in the history, expected 2"):
        replay(events(*MARK), [Mark(FORWARD), Mark(BACKWARD)], before={})
    with pytest.raises(ValueError, match="found more than 0 sentinels"):
        replay(events(*MARK), [], before={})
    with pytest.raises(ValueError, match="found no event of the allocator in the measured step"):
        replay(events(*MARK), [Mark(opens=True)], before={}).peak()

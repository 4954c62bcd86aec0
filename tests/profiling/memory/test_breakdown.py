"""A peak divided among what it is for."""

from __future__ import annotations

import pytest

from theworld.profiling.memory.breakdown import CATEGORIES, Row, breakdown, category, of_category, timeline
from theworld.profiling.memory.events import Block, History, Owner
from theworld.profiling.places import HEAD, LM_HEAD, LOOP, Place
from theworld.profiling.reports.figures import COLOURS

WEIGHTS = Owner("weights", "language", 1000)


def history() -> History:
    """The peak is after event 3: weights, two layers' activations, logits; the batch is gone by then."""
    blocks = [
        Block(1000, -1, 6, owner=WEIGHTS),
        Block(64, -1, 6),
        Block(30, 0, 2, Place("data", "transfer")),
        Block(100, 1, 6, Place("forward", "layers.0")),
        Block(300, 2, 5, Place("forward", "layers.1")),
        Block(50, 3, 4, Place("forward", HEAD)),
        Block(40, 4, 6, Place("backward", "layers.1")),
    ]
    return History(blocks, [10.0, 10.5, 11.0, 11.5, 12.0, 12.5], first=0)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (Block(1, 0, 1, Place("forward", "layers.0"), owner=WEIGHTS), "weights"),  # an owner comes before a place
        (Block(1, 0, 1, Place("forward", "layers.0"), last=Place("backward", "layers.0")), "activations"),
        (Block(1, 0, 1, Place("forward", "layers.0"), last=Place("forward", "layers.1")), "forward_temporaries"),
        (Block(1, 0, 1, Place("backward", "layers.0")), "backward_temporaries"),
        (Block(1, 0, 1, Place("forward", HEAD)), "logits"),
        (Block(1, 0, 1, Place("backward", HEAD)), "logits"),
        (Block(1, 0, 1, Place("forward", LM_HEAD)), "logits"),
        (Block(1, 0, 1, Place("optimizer", "step")), "optimizer_temporaries"),
        (Block(1, 0, 1, Place("data", "transfer")), "inputs"),
        (Block(1, 0, 1, LOOP), "other"),
        (Block(1, -1, 1), "other"),
    ],
)
def test_the_category_of_a_block(block, expected):
    assert category(block) == expected


def test_parts_add_up_to_what_the_allocator_counted():
    rows = breakdown(history(), allocated=1600)
    assert rows == [
        Row("weights", "language", 1000),
        Row("activations", "layers.1", 300),
        Row("activations", "layers.0", 100),
        Row("logits", HEAD, 50),
        Row("rounding", "allocator", 86),
        Row("other", "before the step", 64),
    ]
    assert sum(row.size for row in rows) == 1600
    assert of_category(rows) == {"weights": 1000, "activations": 400, "logits": 50, "rounding": 86, "other": 64}


def test_a_peak_below_what_was_asked_for_is_of_another_step():
    assert not any(row.category == "rounding" for row in breakdown(history(), allocated=1514))
    with pytest.raises(ValueError, match="found 1514 bytes living at the peak, expected at most the 1513"):
        breakdown(history(), allocated=1513)


def test_the_timeline_is_what_lives_after_each_event():
    found = timeline(history())
    assert found.seconds == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert found.peak_seconds == 1.5
    assert found.sizes == {
        "weights": [1000] * 6,
        "activations": [0, 100, 400, 400, 400, 100],
        "logits": [0, 0, 0, 50, 0, 0],
        "backward_temporaries": [0, 0, 0, 0, 40, 40],
        "inputs": [30, 30, 0, 0, 0, 0],
        "other": [64] * 6,
    }


def test_every_category_has_a_colour():
    assert list(COLOURS) == list(CATEGORIES)


def test_a_long_timeline_is_thinned_and_keeps_the_peak():
    blocks = [Block(1, number, number + 1, Place("forward", "a")) for number in range(5000)]
    blocks.append(Block(9, 1234, 1235, Place("backward", "a")))
    found = timeline(History(blocks, [float(number) for number in range(5000)], first=0))
    assert len(found.seconds) <= 801
    assert max(found.sizes["backward_temporaries"]) == 9

"""The peak divided among what it is for. The parts add up to what the allocator counted, to the byte."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from theworld.profiling.memory.events import Block, History
from theworld.profiling.places import HEAD, LM_HEAD

CATEGORIES = {
    "weights": "weights and buffers",
    "gradients": "gradients of the weights",
    "optimizer_state": "state of the optimizer",
    "activations": "activations kept for the backward pass",
    "logits": "logits, their copies and their gradients",
    "forward_temporaries": "temporaries of the forward pass",
    "backward_temporaries": "gradients of activations, and what the backward pass computes again",
    "optimizer_temporaries": "temporaries of clipping and of the optimizer",
    "inputs": "the batch",
    "workspace": "workspaces of cuBLAS",
    "rounding": "the allocator's rounding up of sizes",
    "other": "other",
}
"""Category → what it holds, in the order in which it is shown."""

_BY_PHASE = {
    "forward": "activations",
    "backward": "backward_temporaries",
    "optimizer": "optimizer_temporaries",
    "data": "inputs",
}
_POINTS = 800


@dataclass(frozen=True)
class Row:
    """A part of the peak.

    Attributes:
        category: One of `CATEGORIES`.
        part: Module, group of parameters, or what it is.
        size: Bytes.
    """

    category: str
    part: str
    size: int


@dataclass(frozen=True)
class Timeline:
    """Bytes of each category over the measured stretch.

    Attributes:
        seconds: Since it began.
        sizes: A list as long for each category that is not empty throughout; without rounding.
        peak_seconds: When the most bytes lived.
    """

    seconds: list[float]
    sizes: dict[str, list[int]]
    peak_seconds: float


def category(block: Block) -> str:
    """By its owner, else by where the step was when the block was given out."""
    if block.owner is not None:
        return block.owner.category
    if block.place is None:
        return "other"
    if block.place.phase in ("forward", "backward") and block.place.part in (HEAD, LM_HEAD):
        return "logits"
    if block.place.phase == "forward" and block.last is not None and block.last.phase == "forward":
        return "forward_temporaries"
    return _BY_PHASE.get(block.place.phase, "other")


def breakdown(history: History, allocated: int) -> list[Row]:
    """The peak by category and part, the largest first within a category.

    Args:
        history: Of a whole step.
        allocated: The peak in bytes as the allocator itself counted it; never below what was asked for.

    Raises:
        ValueError: It is below: then some other step was measured.
    """
    sizes: dict[tuple[str, str], int] = defaultdict(int)
    for block in history.living(history.peak()):
        sizes[category(block), _part(block)] += block.size
    if (asked := sum(sizes.values())) > allocated:
        raise ValueError(
            f"found {asked} bytes living at the peak, expected at most the {allocated} that the allocator counted; "
            "measure both over the same step"
        )
    sizes["rounding", "allocator"] += allocated - asked
    order = list(CATEGORIES)
    rows = [Row(name, part, size) for (name, part), size in sizes.items() if size]
    return sorted(rows, key=lambda row: (order.index(row.category), -row.size))


def of_category(rows: Sequence[Row]) -> dict[str, int]:
    """Bytes of each category, in the order of `CATEGORIES`, those without any left out."""
    sums = {name: sum(row.size for row in rows if row.category == name) for name in CATEGORIES}
    return {name: size for name, size in sums.items() if size}


def timeline(history: History) -> Timeline:
    """The measured stretch at no more than 800 moments, of which one is the peak."""
    count, peak = len(history.seconds), history.peak()
    names = [name for name in CATEGORIES if name != "rounding"]
    deltas = np.zeros((len(names), count + 1), dtype=np.int64)  # column 0: before the first event
    for block in history.blocks:
        row = names.index(category(block))
        deltas[row, block.begin + 1] += block.size
        if block.end < count:
            deltas[row, block.end + 1] -= block.size
    sizes = deltas.cumsum(axis=1)[:, 1:]
    moments = np.unique([*np.linspace(history.first, count - 1, _POINTS).astype(int), peak])
    seconds = np.asarray(history.seconds)[moments] - history.seconds[history.first]
    shown = {name: sizes[row, moments].tolist() for row, name in enumerate(names) if sizes[row, moments].any()}
    return Timeline(seconds.tolist(), shown, history.seconds[peak] - history.seconds[history.first])


def _part(block: Block) -> str:
    if block.owner is not None:
        return block.owner.part
    return "before the step" if block.place is None else block.place.part

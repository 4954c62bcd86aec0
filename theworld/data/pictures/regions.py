"""Region names: from OSD's `<mask>` placeholders and turn-local `Region [k]` to one name a region and picture.

A conversation about one image mentions regions again and again, each time with its own `<mask>` and its own box
in the row's list. Here every distinct box gets one global number, used in the text and on the picture
(`theworld.data.pictures.drawing` does the painting).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from theworld.data.pictures.drawing import Box, Region, RegionStyle, check_box, draw_regions
from theworld.data.pictures.masks import Rle

__all__ = ["Box", "Region", "RegionStyle", "Turn", "check_box", "count_masks", "draw_regions", "global_regions"]

Turn = tuple[str, str]
"""Question and answer."""

MASK = "<mask>"

_PLACEHOLDER = re.compile(r"<mask>(?:\s*<depth>)?")
_REGION_NAME = re.compile(r"Region\s*\[(\d+)\]", re.IGNORECASE)


def count_masks(turns: Sequence[Turn]) -> int:
    """How many `<mask>` the questions hold, which is how many boxes the row must have."""
    return sum(question.count(MASK) for question, _ in turns)


def global_regions(
    turns: Sequence[Turn], boxes: Sequence[Box], rles: Sequence[Rle] | None = None
) -> tuple[tuple[Turn, ...], tuple[Region, ...]]:
    """Name every region once.

    The N-th `<mask>` of the whole conversation means `boxes[N]`; identical boxes are one region; numbers follow the
    order of first mention. In an answer, `Region [k]` means the k-th `<mask>` of the question before it.

    Args:
        turns: Questions with `<mask>` or `<mask> <depth>`, and answers with turn-local region names.
        boxes: One box a `<mask>`, in order of mention.
        rles: One mask a box, or None.

    Returns:
        The turns with `Region [g]` everywhere, and the regions in order of `g`.

    Raises:
        ValueError: Counts differ, an answer names a region that its question lacks, or a placeholder is left over.
    """
    if count_masks(turns) != len(boxes):
        raise ValueError(
            f"found {count_masks(turns)} {MASK} in the questions and {len(boxes)} boxes, expected one box a {MASK}."
        )
    if rles is not None and len(rles) != len(boxes):
        raise ValueError(f"found {len(rles)} masks (rle) and {len(boxes)} boxes, expected one mask a box.")
    numbers: dict[Box, int] = {}
    regions: list[Region] = []
    named: list[Turn] = []
    mention = 0
    for turn, (question, answer) in enumerate(turns):
        local: list[int] = []
        for _ in range(question.count(MASK)):
            box = boxes[mention]
            if box not in numbers:
                numbers[box] = len(regions)
                regions.append(Region(len(regions), box, rles[mention] if rles is not None else None, turn))
            local.append(numbers[box])
            mention += 1
        named.append((_name_question(question, local, turn), _name_answer(answer, local, turn)))
    return tuple(named), tuple(regions)


def _name_question(question: str, local: Sequence[int], turn: int) -> str:
    if match := _REGION_NAME.search(question):
        raise ValueError(
            f"question {turn} says {match.group()!r} itself, which would clash with the names given to regions; "
            f"write {MASK} there and add its box."
        )
    numbers = iter(local)
    named = _PLACEHOLDER.sub(lambda _: f"Region [{next(numbers)}]", question)
    if "<depth>" in named:
        raise ValueError(f"question {turn} has a <depth> that follows no {MASK}; remove it.")
    return named


def _name_answer(answer: str, local: Sequence[int], turn: int) -> str:
    if MASK in answer or "<depth>" in answer:
        raise ValueError(f"answer {turn} holds {MASK} or <depth>; answers name regions as 'Region [k]'.")

    def rename(match: re.Match[str]) -> str:
        k = int(match.group(1))
        if k >= len(local):
            raise ValueError(
                f"answer {turn} names {match.group()!r}, but its question mentions {len(local)} regions "
                "(counted from 0); correct the answer or the question."
            )
        return f"Region [{local[k]}]"

    return _REGION_NAME.sub(rename, answer)

"""COCO run-length masks: validated before a byte is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from theworld.data.images import MAX_PIXELS


class Rle(TypedDict):
    """COCO run-length encoding: `size` is [height, width], `counts` the runs, compressed (str) or not (list)."""

    size: list[int]
    counts: str | list[int]


def check_rle(rle: Rle, size: tuple[int, int]) -> None:
    """Refuse a mask that does not describe exactly this image.

    A 20-byte mask can declare 40000 x 40000 pixels, and pycocotools decodes too short runs without a word; both
    are found here, before memory is taken.

    Args:
        rle: The mask.
        size: (width, height) of the image it belongs to.

    Raises:
        ValueError: Size differs from the image's, is too large, or the runs do not add up to it.
    """
    width, height = size
    found = list(rle["size"])
    if found != [height, width]:
        raise ValueError(
            f"mask size is {found}, expected [height, width] = {[height, width]} of the image; "
            "the mask belongs to another image or was not resized with it."
        )
    if width * height > MAX_PIXELS:
        raise ValueError(f"mask has {width * height} pixels, expected at most {MAX_PIXELS}; shrink the image.")
    counts = rle["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else list(counts)
    if any(run < 0 for run in runs) or sum(runs) != width * height:
        raise ValueError(
            f"mask runs add up to {sum(runs)}, expected height x width = {width * height}; the mask is damaged."
        )


def decode_rle(rle: Rle, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask as bool[height, width], after `check_rle`."""
    check_rle(rle, size)
    height, width = rle["size"]
    counts = rle["counts"]
    if isinstance(counts, str):
        packed = {"size": [height, width], "counts": counts.encode("ascii")}
    else:
        packed = coco.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    return coco.decode(packed).astype(bool)


def _decompress(counts: str) -> Sequence[int]:
    """Runs of COCO's compressed string: 5 bits a character, low first; from the third on a difference to two back."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(
                f"mask counts hold {character!r}, which COCO's encoding never writes; the mask is damaged."
            )
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("mask counts end in the middle of a number; the mask is damaged.")
    return runs

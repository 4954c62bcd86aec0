"""COCO run-length masks: validated before a byte is decoded."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from theworld.data.pictures.images import MAX_PIXELS

_Ints = NDArray[np.int64]

_LONGEST_NUMBER = 7
"""Characters of one run, of 5 bits each; COCO's own writer needs no more for 40 million pixels."""


class Rle(TypedDict):
    """COCO run-length encoding: `size` is [height, width], `counts` the runs, compressed (str) or not (list)."""

    size: list[int]
    counts: str | list[int]


def check_rle_size(rle: Rle, size: tuple[int, int]) -> None:
    """Refuse a mask of another size than its image; the boxes beside it are then in other pixels, too.

    Args:
        rle: The mask.
        size: (width, height) of the image it belongs to.

    Raises:
        ValueError: Size differs from the image's, or is too large.
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
    check_rle_size(rle, size)
    width, height = size
    counts = rle["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else np.array(counts or [0], dtype=object)
    total = int(runs.sum())
    if total != width * height or (len(runs) and runs.min() < 0):
        raise ValueError(
            f"mask runs add up to {total}, expected height x width = {width * height}; the mask is damaged."
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


def _decompress(counts: str) -> _Ints:
    """Runs of COCO's compressed string: 5 bits a character, low first; from the third on a difference to two back."""
    codes = np.frombuffer(counts.encode("utf-8"), dtype=np.uint8) - np.uint8(48)  # what lies below wraps round
    if len(codes) == 0:
        return codes.astype(np.int64)
    if codes.max() >= 64:
        bad = next(character for character in counts if not 0 <= ord(character) - 48 < 64)
        raise ValueError(f"mask counts hold {bad!r}, which COCO's encoding never writes; the mask is damaged.")
    ends = np.flatnonzero(codes < 32)  # 32 means that more follows
    if len(ends) == 0 or ends[-1] != len(codes) - 1:
        raise ValueError("mask counts end in the middle of a number; the mask is damaged.")
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > _LONGEST_NUMBER:
        raise ValueError(f"mask counts hold a number of {lengths.max()} characters; the mask is damaged.")
    starts, digits = ends - lengths + 1, codes & 31
    runs = digits[starts].astype(np.int64)
    for place in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > place)
        runs[longer] += digits[starts[longer] + place].astype(np.int64) << 5 * place
    negative = np.flatnonzero(codes[ends] & 16)  # the highest bit of a number's last character is its sign
    runs[negative] -= np.int64(1) << 5 * lengths[negative]
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs

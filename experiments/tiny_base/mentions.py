"""Where a sample names a region (the token ` [3]`), and what is known there about it: targets of the read-out loss."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

MAX_MENTIONS = 24
UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about one region; -1 where it is not.

    Rows and columns are of five, coarse ones of three; `x` and `y` are percent of the image.
    """

    kind: int = UNKNOWN
    colour: int = UNKNOWN
    row: int = UNKNOWN
    column: int = UNKNOWN
    coarse_row: int = UNKNOWN
    coarse_column: int = UNKNOWN
    x: int = UNKNOWN
    y: int = UNKNOWN


NUM_FACTS = len(Facts.__dataclass_fields__)


def mention_arrays(
    input_ids: np.ndarray, region_ids: dict[int, int], facts: dict[int, Facts], *, skip: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the mentions and the facts of the regions mentioned.

    Args:
        input_ids: Of one sample, int[T].
        region_ids: Token id of ` [k]` → k.
        facts: Region number → what is known about it.
        skip: The first mentions that do not count (where the facts themselves are stated).

    Returns:
        int16[MAX_MENTIONS] positions, -1 where there is none; int8[MAX_MENTIONS, NUM_FACTS].
    """
    found = [(at, region_ids[int(token)]) for at, token in enumerate(input_ids) if int(token) in region_ids]
    at = np.full(MAX_MENTIONS, UNKNOWN, dtype=np.int16)
    known = np.full((MAX_MENTIONS, NUM_FACTS), UNKNOWN, dtype=np.int8)
    for slot, (position, number) in enumerate(found[skip : skip + MAX_MENTIONS]):
        at[slot] = position
        known[slot] = astuple(facts[number])
    return at, known

"""How many world tokens each sample of training has in an epoch, where it draws the number anew in every epoch.

S samples of an epoch
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]


def check_drawn(choices: Sequence[int], *, most: int, images: _Ints) -> None:
    """Refuse numbers that samples cannot have.

    Args:
        choices: World placeholders of a sample, of which one is drawn.
        most: World placeholders of a whole sample.
        images: int64[S], images of each.

    Raises:
        ValueError: A choice is below 1 or above `most`, or a sample has several images.
    """
    if not choices or min(choices) < 1 or max(choices) > most:
        raise ValueError(
            f"found random_num_world_tokens={list(choices)}, expected numbers of 1 to num_world_tokens={most}; correct "
            "them (theworld fit makes them of model.random_world_tokens_per_frame)"
        )
    if len(images) and images.max() > 1:
        raise ValueError(
            f"found a sample of {images.max()} images with random_num_world_tokens, expected at most one: its world "
            "block is that of one image; leave random_num_world_tokens out"
        )


def fewer_world_tokens(images: _Ints, *, choices: Sequence[int], most: int, seed: int, epoch: int) -> _Ints:
    """World tokens that each sample has less than `most` in an epoch: a pure function of seed, epoch and place.

    In every epoch each choice falls to equally many samples, or one more: which of them is random, how many tokens all
    have together is nearly not. So all epochs need about as many rows.

    Args:
        images: int64[S], 1 or 0; a sample without an image has no world tokens to lose.
        choices: World tokens of a sample, of which one is drawn.
        most: World tokens of a whole sample.
        seed: Of the run.
        epoch: Its number.

    Returns:
        int64[S].
    """
    dealt = np.random.default_rng((seed, epoch, 3)).permutation(len(images)) % len(choices)
    return np.where(images > 0, most - np.array(choices, dtype=np.int64)[dealt], 0)

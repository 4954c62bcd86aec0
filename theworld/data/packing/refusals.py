"""What no plan can be made of.

S samples
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]


def check_lengths(sizes: _Ints, budget: int, micro_batches_per_step: int) -> None:
    """Refuse lengths that no row can hold, and too few samples for a step."""
    if micro_batches_per_step < 1:
        raise ValueError(f"micro_batches_per_step is {micro_batches_per_step}, expected at least 1.")
    if len(sizes) < micro_batches_per_step:
        raise ValueError(
            f"found {len(sizes)} samples, expected at least micro_batches_per_step={micro_batches_per_step}, one for "
            "each packed row of a step; add samples or lower micro_batches_per_step."
        )
    if sizes.min() < 1:
        raise ValueError(f"sample {int(sizes.argmin())} has length {int(sizes.min())}, expected at least 1 token.")
    if sizes.max() > budget:
        raise ValueError(
            f"sample {int(sizes.argmax())} has {int(sizes.max())} tokens, expected at most the budget of {budget}; "
            "raise token_budget or lower max_seq_length."
        )


def check_images(images: Sequence[int] | _Ints | None, counts: _Ints, max_images: int) -> None:
    """Refuse a sample with more images than a row can hold."""
    if images is None or len(counts) == 0 or counts.min() < 0:
        raise ValueError("max_images needs the number of images of each sample, 0 or more; pass images.")
    if counts.max() > max_images:
        raise ValueError(
            f"sample {int(counts.argmax())} has {int(counts.max())} images, expected at most max_images={max_images} "
            "of a packed row; raise max_images."
        )


def check_window(groups: Sequence[int] | _Ints | None, window: int, samples: int) -> None:
    """Refuse a window without the groups that it is made of."""
    if window < 1:
        raise ValueError(f"window is {window}, expected at least 1 group (shard).")
    if groups is None or len(groups) != samples:
        raise ValueError(
            f"found window={window} and the groups of {0 if groups is None else len(groups)} samples, expected the "
            f"group (shard) of each of the {samples} samples; a window needs shards, leave it out for a folder."
        )

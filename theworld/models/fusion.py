"""Putting features into their placeholders, with an exact count and no wait for the device.

B rows of a batch · T tokens of a row · S sources (images or frames) · N tokens of one source · D hidden size
"""

from __future__ import annotations

import torch
from torch import Tensor


def fill_placeholders(embeds: Tensor, where: Tensor, features: Tensor, *, what: str) -> Tensor:
    """`embeds` with `features`, in order, at the positions where `where` is true.

    Args:
        embeds: float[B, T, D].
        where: bool[B, T], true at S·N positions.
        features: float[S, N, D]; S is 0 where there are none.
        what: `image` or `world`, for the message.
    """
    expected = features.shape[0] * features.shape[1]
    _check_count(where, expected, f"{what} placeholders", f"{features.shape[0]} frames of {features.shape[1]} tokens")
    if expected == 0:
        return embeds
    # The number of positions is known from the features, so that nothing waits for the mask's values.
    positions = torch.nonzero_static(where.flatten(), size=expected).flatten()  # (S·N,)
    filled = embeds.flatten(0, 1).index_copy(0, positions, features.flatten(0, 1).to(embeds))  # (B·T, D)
    return filled.view_as(embeds)


def _check_count(where: Tensor, expected: int, name: str, source: str) -> None:
    if where.device.type != "cpu":  # asserted on the device: reading the count here would stall it
        torch._assert_async(where.sum() == expected, f"the number of {name} is not {expected}")
        return
    found = int(where.sum())
    if found != expected:
        raise ValueError(
            f"found {found} {name}, expected {expected} for {source}; the processor and the model must have the "
            "same settings"
        )

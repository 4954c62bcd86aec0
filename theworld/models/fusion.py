"""Putting features into their placeholders, with an exact count and no wait for the device.

An audit's intervention (`model.intervention`) comes between the towers and the placeholders.

B rows of a batch · T tokens of a row · S sources (images or frames) · N tokens of one source · D hidden size
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from theworld.models.cosmos_encoder import world_tokens
from theworld.models.image_features import image_tokens
from theworld.types import TokenType

if TYPE_CHECKING:
    from theworld.models.theworld import TheWorld


def fuse(
    model: TheWorld,
    input_ids: Tensor,
    types: Tensor,
    *,
    pixel_values: Tensor | None,
    image_features: Tensor | None,
    world_pixel_values: Tensor | None,
    world_latents: Tensor | None,
    counts: Sequence[int] = (),
) -> tuple[Tensor, int]:
    """Text, image and world tokens in one sequence.

    Args:
        model: Whose towers and embedding they come from.
        input_ids: int64[B, T].
        types: int64[B, T], values of `TokenType`.
        pixel_values: As in `TheWorld.forward`, like the three below.
        image_features: In place of `pixel_values`.
        world_pixel_values: Frames.
        world_latents: In place of `world_pixel_values`.
        counts: World tokens of each frame, where they differ.

    Returns:
        float[B, T, D], and the number of images.
    """
    images = image_tokens(model.gemma, pixel_values, image_features)  # (I, N, D)
    worlds = world_tokens(  # (W, N, D), or (1, Σ N, D) with counts
        model.cosmos_encoder,
        world_pixel_values,
        world_latents,
        like=model.gemma.lm_head.weight,
        counts=counts or None,
    )
    if model.intervention is not None:
        images, worlds = model.intervention.tokens(model, images, worlds)
    embeds = model.get_input_embeddings()(input_ids)  # (B, T, D)
    embeds = fill_placeholders(embeds, types == TokenType.IMAGE, images, what="image")
    return fill_placeholders(embeds, types == TokenType.WORLD, worlds, what="world"), len(images)


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

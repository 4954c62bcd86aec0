"""What stands before the first question of every sample: the world block, the turn's header and the image block.

T tokens of a sample
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch

from theworld.types import Sample, TokenType

WorldPosition = Literal["first", "after_image"]
"""Where the world block stands: right behind `<bos>`, so that image and text see it; or behind the image block."""


def check_position(world_position: str) -> None:
    """Refuse an unknown choice."""
    if world_position not in get_args(WorldPosition):
        raise ValueError(f"found world_position={world_position!r}, expected one of {get_args(WorldPosition)}")


def opening_ids(
    bos: int, *, world: Sequence[int], header: Sequence[int], image: Sequence[int], world_position: WorldPosition
) -> list[int]:
    """Token ids up to where the first question begins.

    Args:
        bos: Begin of the sequence.
        world: Start, placeholders and end of the world block; empty with the world off.
        header: Of the first turn, up to the token that opens the image.
        image: Placeholders of the image, and the token that closes it.
        world_position: Where the world block goes.
    """
    if world_position == "first":
        return [bos, *world, *header, *image]
    return [bos, *header, *image, *world]


def without_world_tokens(sample: Sample, fewer: int) -> Sample:
    """The sample with `fewer` world placeholders less, wherever its block stands; all else as it is.

    Raises:
        ValueError: It does not have more than so many.
    """
    if fewer == 0:
        return sample
    places = torch.nonzero(sample.token_type_ids == TokenType.WORLD).flatten()
    if not 0 < fewer < len(places):
        raise ValueError(
            f"{sample.id}: found {len(places)} world placeholders of which {fewer} are to go, expected at least one to "
            "stay; draw budgets of at most the processor's num_world_tokens."
        )
    stays = torch.ones(len(sample.input_ids), dtype=torch.bool)
    stays[places[-fewer:]] = False
    fields = {name: getattr(sample, name)[stays] for name in ("input_ids", "labels", "token_type_ids")}  # (T - fewer,)
    return replace(sample, **fields)


def world_token_counts(samples: Sequence[Sample]) -> tuple[int, ...]:
    """World placeholders of each sample that has any, in order."""
    counts = [int((sample.token_type_ids == TokenType.WORLD).sum()) for sample in samples]
    return tuple(count for count in counts if count)

"""What stands before the first question of every sample: the world block, the turn's header and the image block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

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

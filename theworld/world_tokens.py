"""How many world tokens a sample has, from settings alone: the data needs the number before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence

COSMOS_STRIDE = 8
COSMOS_CHANNELS = 16


def num_world_tokens(
    world_image_size: int,
    world_projection_mode: str,
    num_world_steps: int,
    world_tokens_per_frame: int | None = None,
    world_latent_shape: tuple[int, int] | None = None,
) -> int:
    """World placeholders of a sample; the model is checked against this once loaded.

    Args:
        world_image_size: Side of the world encoder's square input, in pixels.
        world_projection_mode: `spatial` has a token a latent cell, `channel` one a latent channel.
        num_world_steps: Future latent frames besides the image's own.
        world_tokens_per_frame: As in `tokens_per_frame`.
        world_latent_shape: Channels and stride of latents that are not the Cosmos VAE's, which has a cell for 8 × 8
            pixels and 16 channels.

    Raises:
        ValueError: As `tokens_per_frame`, or a shape, number of steps or side in pixels that no latents have.
    """
    channels, stride = world_latent_shape or (COSMOS_CHANNELS, COSMOS_STRIDE)
    if channels < 1 or stride < 1 or num_world_steps < 0:
        raise ValueError(
            f"found world_latent_shape={world_latent_shape} and num_world_steps={num_world_steps}, expected channels "
            "and a stride of at least 1 (or none), and no fewer than 0 steps"
        )
    side, rest = divmod(world_image_size, stride)
    if side < 1 or rest:
        raise ValueError(
            f"found world_image_size={world_image_size}, expected a positive multiple of the latent stride {stride}, "
            f"such as {max(1, side) * stride}"
        )
    per_frame = tokens_per_frame(side, channels, mode=world_projection_mode, budget=world_tokens_per_frame)
    return per_frame * (1 + num_world_steps)


def random_num_world_tokens(
    enable_world: bool,
    world_image_size: int,
    world_projection_mode: str,
    num_world_steps: int,
    world_tokens_per_frame: int | None = None,
    world_latent_shape: tuple[int, int] | None = None,
    random_world_tokens_per_frame: Sequence[int] | None = None,
) -> list[int] | None:
    """World placeholders of a sample for each number of tokens a frame that it may draw in training; None: no draw.

    Args:
        enable_world: Whether there is a world branch.
        world_image_size: As in `num_world_tokens`, like the four below.
        world_projection_mode: See there.
        num_world_steps: See there.
        world_tokens_per_frame: The most that may be drawn.
        world_latent_shape: See there.
        random_world_tokens_per_frame: What is drawn from.

    Raises:
        ValueError: No world branch, channel mode, fewer than two different numbers, or one that is no budget of the
            frame or more than `world_tokens_per_frame`.
    """
    drawn = random_world_tokens_per_frame
    if drawn is None:
        return None
    found = f"found random_world_tokens_per_frame={list(drawn)}"
    if not enable_world or world_projection_mode != "spatial":
        raise ValueError(
            f"{found} with enable_world={enable_world} and world_projection_mode={world_projection_mode!r}, expected "
            "spatial world tokens: nothing else is averaged down; leave it out, or use 'spatial'"
        )
    one_frame = (world_image_size, world_projection_mode, 0, world_tokens_per_frame, world_latent_shape)
    most = num_world_tokens(*one_frame)
    stride = world_latent_shape[1] if world_latent_shape else COSMOS_STRIDE
    allowed = [budget for budget in budgets(world_image_size // stride) if budget <= most]
    if len(set(drawn)) != len(drawn) or len(drawn) < 2 or not set(drawn) <= set(allowed):
        raise ValueError(
            f"{found}, expected at least two different ones of {allowed}: squares whose side divides that of the "
            f"latents, at most world_tokens_per_frame, {most}; correct it, raise world_tokens_per_frame, or leave it "
            "out for one number"
        )
    return [budget * (1 + num_world_steps) for budget in drawn]


def budgets(latent_side: int) -> list[int]:
    """All numbers of tokens to which a square frame of so many latent cells a side can be averaged down, descending."""
    return [side**2 for side in range(latent_side, 0, -1) if latent_side % side == 0]


def tokens_per_frame(latent_side: int, latent_channels: int, *, mode: str, budget: int | None) -> int:
    """World tokens of one latent frame.

    Args:
        latent_side: Cells along a side of the frame.
        latent_channels: Its channels.
        mode: `spatial` has a token a cell, `channel` one a channel.
        budget: In spatial mode fewer tokens: those of a square of cells to which the frame is averaged down. None: all.

    Raises:
        ValueError: A budget in channel mode, or one that no square of equal blocks has.
    """
    if budget is None:
        return latent_side**2 if mode == "spatial" else latent_channels
    if mode != "spatial":
        raise ValueError(
            f"found world_tokens_per_frame={budget} with world_projection_mode={mode!r}, expected none: a token of "
            "this mode is a whole channel; leave it out, or use 'spatial'"
        )
    allowed = budgets(latent_side)
    if budget not in allowed:
        raise ValueError(
            f"found world_tokens_per_frame={budget}, expected one of {allowed} (or none): a frame of {latent_side} × "
            f"{latent_side} latent cells is averaged over equal square blocks"
        )
    return budget

"""How many world tokens a sample has, from settings alone: the data needs the number before a model is loaded."""

from __future__ import annotations

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
        ValueError: As `tokens_per_frame`.
    """
    channels, stride = world_latent_shape or (COSMOS_CHANNELS, COSMOS_STRIDE)
    side = world_image_size // stride
    per_frame = tokens_per_frame(side, channels, mode=world_projection_mode, budget=world_tokens_per_frame)
    return per_frame * (1 + num_world_steps)


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
    allowed = [side**2 for side in range(latent_side, 0, -1) if latent_side % side == 0]
    if budget not in allowed:
        raise ValueError(
            f"found world_tokens_per_frame={budget}, expected one of {allowed} (or none): a frame of {latent_side} × "
            f"{latent_side} latent cells is averaged over equal square blocks"
        )
    return budget

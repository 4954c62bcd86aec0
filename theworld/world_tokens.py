"""How many world tokens a sample has, from settings alone: the data needs the number before a model is loaded."""

from __future__ import annotations

COSMOS_STRIDE = 8
COSMOS_CHANNELS = 16


def num_world_tokens(world_image_size: int, world_projection_mode: str, num_world_steps: int) -> int:
    """World placeholders of a sample.

    The Cosmos VAE has a latent cell for 8 × 8 pixels and 16 channels; the model is checked against this once loaded.

    Args:
        world_image_size: Side of the world encoder's square input, in pixels.
        world_projection_mode: `spatial` has a token a latent cell, `channel` one a latent channel.
        num_world_steps: Future latent frames besides the image's own.
    """
    cells = (world_image_size // COSMOS_STRIDE) ** 2
    return (cells if world_projection_mode == "spatial" else COSMOS_CHANNELS) * (1 + num_world_steps)

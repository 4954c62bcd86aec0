"""The world branch: frames → world tokens, by the world encoder and then the projector.

W frames given · N world tokens of one frame · D hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from theworld.models.configuration import TheWorldConfig
from theworld.models.projector import WorldProjector
from theworld.models.world_encoder import WorldEncoder


class CosmosEncoder(nn.Module):
    """World source of the present frame: its Cosmos latent, projected to the language model's space.

    Args:
        vae: Frames → latents.
        projector: Latents → world tokens.
        image_size: Side in pixels to which a PIL image is resized.
        num_world_steps: Future frames asked for. This source knows only the present one, so it must be 0.
    """

    def __init__(
        self, vae: WorldEncoder, *, projector: WorldProjector, image_size: int, num_world_steps: int = 0
    ) -> None:
        super().__init__()
        if num_world_steps != 0:
            raise ValueError(
                f"found num_world_steps={num_world_steps}, expected 0: the frame source encodes the present frame "
                "only, and future frames need a rollout source, which this version does not have"
            )
        self.vae = vae
        self.projector = projector
        self.image_size = image_size

    @classmethod
    def from_config(cls, config: TheWorldConfig) -> CosmosEncoder:
        """A world branch with new weights; `target_rms` is 1 until the text embeddings are known."""
        return cls(
            WorldEncoder.from_config(config.vae_config),
            projector=new_projector(config, target_rms=1.0),
            image_size=config.world_image_size,
            num_world_steps=config.num_world_steps,
        )

    def forward(self, images: Tensor | Sequence[Image.Image]) -> Tensor:
        """RGB frames `float[W, 3, h, w]` in [-1, 1], or PIL images → world tokens `float[W, N, D]`."""
        pixels = images if isinstance(images, Tensor) else self._pixels(images)  # (W, 3, h, w)
        return self.projector(self.vae(pixels))  # (W, N, D)

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Squash each image to the square frame (bicubic, antialiased, aspect ratio not kept)."""
        size = (self.image_size, self.image_size)
        arrays = [np.array(i.convert("RGB").resize(size, Image.Resampling.BICUBIC)) for i in images]
        pixels = torch.from_numpy(np.stack(arrays)).to(self.vae.latents_mean.device)  # (W, h, w, 3)
        # Contiguous, as the data side's are: another layout runs another kernel, which rounds differently.
        return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1.0


def new_projector(config: TheWorldConfig, *, target_rms: float) -> WorldProjector:
    """A projector of the configured shape with new weights from torch's global random state."""
    return WorldProjector(
        latent_channels=config.latent_channels,
        hidden_size=config.hidden_size,
        mode=config.world_projection_mode,
        architecture=config.projection_architecture,
        latent_cells=config.latent_cells,
        target_rms=target_rms,
    )


def world_tokens(
    encoder: CosmosEncoder | None, pixels: Tensor | None, latents: Tensor | None, *, like: Tensor
) -> Tensor:
    """World tokens of frames, or of latents made before.

    Args:
        encoder: The world branch; None in a model without one.
        pixels: float[W, 3, h, w] in [-1, 1], or none.
        latents: float[W, C, F, h/8, w/8] in their place, as the world encoder gives them.
        like: float[·, D]: type, device and width of the answer where there are no frames.

    Returns:
        float[W, N, D]; W is 0 without frames.
    """
    given = pixels if latents is None else latents
    if given is None or len(given) == 0:
        return like.new_empty(0, 0, like.shape[1])
    if encoder is None:
        raise ValueError(f"found {len(given)} world frames, expected none with enable_world=False in the model")
    return encoder(given) if latents is None else encoder.projector(latents)

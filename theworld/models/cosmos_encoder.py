"""The world branch: images → latents, by the world encoder or an attached source → world tokens, by the projector.

W images given · C latent channels · F latent frames of each · N world tokens of one latent frame · D hidden size
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from theworld.models.configuration import TheWorldConfig
from theworld.models.projector import WorldProjector
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.source import WorldSource, content_keys
from theworld.world_tokens import budgets


class CosmosEncoder(nn.Module):
    """World tokens of images, or of latents that were made of them before.

    Args:
        vae: Images → latents of one frame, the present one.
        projector: Latents → world tokens.
        image_size: Side in pixels to which a PIL image is resized.
        num_world_steps: Future latent frames besides the present one.

    Attributes:
        source: Makes the latents in place of `vae` once it is set. No part of the model: its weights are in no
            parameter group, checkpoint or export, and are moved by its own `to`.
    """

    source: WorldSource | None

    def __init__(
        self, vae: WorldEncoder, *, projector: WorldProjector, image_size: int, num_world_steps: int = 0
    ) -> None:
        super().__init__()
        self.vae = vae
        self.projector = projector
        self.image_size = image_size
        self.num_world_steps = num_world_steps
        self.source = None

    @classmethod
    def from_config(cls, config: TheWorldConfig) -> CosmosEncoder:
        """A world branch with new weights; `target_rms` is 1 until the text embeddings are known."""
        return cls(
            WorldEncoder.from_config(config.vae_config),
            projector=new_projector(config, target_rms=1.0),
            image_size=config.world_image_size,
            num_world_steps=config.num_world_steps,
        )

    def forward(self, images: Tensor | Sequence[Image.Image], counts: Sequence[int] | None = None) -> Tensor:
        """RGB images `float[W, 3, h, w]` in [-1, 1], or PIL images → world tokens `float[W, F·N, D]`.

        Args:
            images: What is encoded.
            counts: As in `project`.

        Raises:
            ValueError: Future frames are wanted and there is no source, or its latents have another shape.
        """
        pixels = images if isinstance(images, Tensor) else self._pixels(images)  # (W, 3, h, w)
        if self.source is not None:
            return self.project(self._of_source(self.source, pixels), counts)  # (W, F·N, D)
        if self.num_world_steps or self.projector.latent_channels != self.vae.latents_mean.shape[1]:
            raise ValueError(
                f"found images and no world source with num_world_steps={self.num_world_steps} and latents of "
                f"{self.projector.latent_channels} channels, expected one: the world encoder makes "
                f"{self.vae.latents_mean.shape[1]} of the present frame only; attach a source (attach_source), or give "
                "world_latents from `theworld data cache`"
            )
        return self._projected(self.vae(pixels), counts)  # (W, N, D)

    def project(self, latents: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Latents `float[W, C, F, h/8, w/8]` → world tokens `float[W, F·N, D]`.

        Args:
            latents: Of W images.
            counts: World tokens of each of them, where they differ; then the answer is `float[1, Σ F·N, D]`.

        Raises:
            ValueError: Another number of channels, frames or cells than the model has, or counts that no frame has.
        """
        channels, frames, rows, columns = latents.shape[1:]
        found = (channels, frames, rows * columns)
        expected = (self.projector.latent_channels, 1 + self.num_world_steps, self.projector.latent_cells)
        if found != expected:
            raise ValueError(
                f"found world latents of {found} channels, frames and cells, expected {expected}; give latents that "
                "were made with the model's num_world_steps and world_image_size"
            )
        return self._projected(latents, counts)

    def _projected(self, latents: Tensor, counts: Sequence[int] | None) -> Tensor:
        """As `project`, of latents that are known to fit."""
        if counts is None:
            return self.projector(latents)
        frames, side = 1 + self.num_world_steps, math.isqrt(self.projector.latent_cells)
        allowed = [budget * frames for budget in budgets(side)] if self.projector.mode == "spatial" else []
        if len(counts) != len(latents) or not set(counts) <= set(allowed):
            raise ValueError(
                f"found world_token_counts {tuple(counts)} for {len(latents)} images, expected as many, each of "
                f"{allowed}; draw them from the model's random_world_tokens_per_frame"
            )
        return self.projector(latents, [count // frames for count in counts])

    def _of_source(self, source: WorldSource, pixels: Tensor) -> Tensor:
        """float32[W, C, F, h/8, w/8]; a rollout takes long, so what is wrong is said before it."""
        if source.num_frames != 1 + self.num_world_steps:
            raise ValueError(
                f"found a world source of {source.num_frames} latent frames, expected {1 + self.num_world_steps} with "
                f"num_world_steps={self.num_world_steps}; attach a source of that many"
            )
        return source.encode(pixels, content_keys(pixels))

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
        tokens_per_frame=config.world_tokens_per_frame,
        num_world_steps=config.num_world_steps,
        max_world_steps=config.max_world_steps,
    )


def world_tokens(
    encoder: CosmosEncoder | None,
    pixels: Tensor | None,
    latents: Tensor | None,
    *,
    like: Tensor,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """World tokens of frames, or of latents made before.

    Args:
        encoder: The world branch; None in a model without one.
        pixels: float[W, 3, h, w] in [-1, 1], or none.
        latents: float[W, C, F, h/8, w/8] in their place, as the world encoder or a world source gives them.
        like: float[·, D]: type, device and width of the answer where there are no frames.
        counts: World tokens of each frame given, where they differ.

    Returns:
        float[W, F·N, D], or with `counts` float[1, Σ F·N, D]; W is 0 without frames.
    """
    given = pixels if latents is None else latents
    if given is None or len(given) == 0:
        return like.new_empty(0, 0, like.shape[1])
    if encoder is None:
        raise ValueError(f"found {len(given)} world frames, expected none with enable_world=False in the model")
    return encoder(given, counts) if latents is None else encoder.project(latents, counts)

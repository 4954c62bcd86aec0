"""What the denoiser thinks of a frame: the hidden states of one of its blocks, at one level of noise.

Published work on features of diffusion models finds blocks in the middle and moderate noise most useful; which block
and how much noise is for an experiment to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.denoiser import Denoiser
from theworld.models.world_sources.denoiser_source import DenoiserSource
from theworld.models.world_sources.source import SourceSettings, noise
from theworld.models.world_sources.text import Text

_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class HiddenStatesSettings(SourceSettings):
    """Which hidden states.

    Args:
        block: Number of the block, from 0.
        sigma: Size of the noise on the frame's latent; 0 for none.
        seed: Of the noise, together with each image's key.
        fps: Frames a second that are said of the video.
    """

    kind = "hidden_states"

    block: int
    sigma: float = 0.5
    seed: int = 0
    fps: int = 16

    def __post_init__(self) -> None:
        if not (self.block >= 0 and self.sigma >= 0 and self.fps >= 1):  # also of what is no number
            raise ValueError(f"found {self}, expected a block and sigma of at least 0 and fps of at least 1")

    def source(
        self, vae: WorldEncoder, cosmos_model: str, *, text: str | Path | None, dtype: torch.dtype
    ) -> HiddenStates:
        """As `SourceSettings.source` has it; reads the denoiser of `cosmos_model`."""
        return HiddenStates.from_pretrained(vae, cosmos_model, self, text=text, dtype=dtype)


class HiddenStates(DenoiserSource[HiddenStatesSettings]):
    """Hidden states in place of latents: as many channels as the denoiser is wide, a cell for each of its patches.

    Every cell is scaled to a root mean square of 1, because a few channels of such networks are hundreds of times
    larger than the others.

    Args:
        vae: As in `DenoiserSource`, like the three below.
        denoiser: See there. Blocks behind the chosen one are removed from it.
        settings: Which block, at which noise.
        text: See there.
    """

    num_frames = 1

    def __init__(
        self, vae: WorldEncoder, denoiser: Denoiser, settings: HiddenStatesSettings, *, text: Text | None = None
    ) -> None:
        super().__init__(vae, denoiser, settings, text=text)
        blocks, config = denoiser.transformer.transformer_blocks, denoiser.transformer.config
        if settings.block >= len(blocks):
            raise ValueError(f"found block={settings.block}, expected less than {len(blocks)}, the denoiser's blocks")
        denoiser.transformer.transformer_blocks = nn.ModuleList(blocks[: settings.block + 1])
        self.latent_channels = config.num_attention_heads * config.attention_head_dim

    @torch.no_grad()
    def encode(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """float32[W, width, 1, h/16, w/16]; otherwise as `WorldSource.encode` has it."""
        latents = self.vae(pixels)  # (W, C, 1, h, w)
        drawn = [noise(latents.shape[1:], seed=self.settings.seed, key=key) for key in keys]
        if drawn:
            latents = latents + self.settings.sigma * torch.stack(drawn).to(latents.device)
        states = self.denoiser.hidden_states(
            latents,
            self.settings.sigma,
            block=self.settings.block,
            text=self.text.spread(latents),
            fps=self.settings.fps,
        )
        return states * torch.rsqrt(states.square().mean(dim=1, keepdim=True) + _EPSILON)

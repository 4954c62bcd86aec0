"""What the denoiser thinks of a frame: the hidden states of one of its blocks, at one level of noise.

Published work on features of diffusion models finds blocks in the middle and moderate noise most useful; which block
and how much noise is for an experiment to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from theworld.models.weights_digest import weights_sha256
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.denoiser import Denoiser
from theworld.models.world_sources.source import Facts, WorldSource, noise, numbers_of
from theworld.models.world_sources.text import Text

_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class HiddenStatesSettings:
    """Which hidden states.

    Args:
        block: Number of the block, from 0.
        sigma: Size of the noise on the frame's latent; 0 for none.
        seed: Of the noise, together with each image's key.
        fps: Frames a second that are said of the video.
    """

    block: int
    sigma: float = 0.5
    seed: int = 0
    fps: int = 16

    @classmethod
    def from_facts(cls, facts: Mapping[str, str]) -> HiddenStatesSettings:
        """Those of a fingerprint."""
        return cls(**numbers_of(cls, facts))

    def __post_init__(self) -> None:
        if self.block < 0 or self.sigma < 0 or self.fps < 1:
            raise ValueError(f"found {self}, expected a block and sigma of at least 0 and fps of at least 1")


class HiddenStates(WorldSource):
    """Hidden states in place of latents: as many channels as the denoiser is wide, a cell for each of its patches.

    Every cell is scaled to a root mean square of 1, because a few channels of such networks are hundreds of times
    larger than the others.

    Args:
        vae: Of the same Cosmos model.
        denoiser: Likewise. Blocks behind the chosen one are removed from it.
        settings: Which block, at which noise.
        text: For every image the same; by default none.
    """

    num_frames = 1

    def __init__(
        self, vae: WorldEncoder, denoiser: Denoiser, settings: HiddenStatesSettings, *, text: Text | None = None
    ) -> None:
        blocks = denoiser.transformer.transformer_blocks
        if settings.block >= len(blocks):
            raise ValueError(f"found block={settings.block}, expected less than {len(blocks)}, the denoiser's blocks")
        denoiser.transformer.transformer_blocks = nn.ModuleList(blocks[: settings.block + 1])
        self.vae = vae
        self.denoiser = denoiser
        self.settings = settings
        self.text = Text.none(denoiser.text_width) if text is None else text
        config = denoiser.transformer.config
        self.latent_channels = config.num_attention_heads * config.attention_head_dim

    @classmethod
    def from_pretrained(
        cls,
        vae: WorldEncoder,
        name_or_path: str,
        settings: HiddenStatesSettings,
        *,
        text: str | Path | None = None,
        dtype: torch.dtype = torch.bfloat16,
    ) -> HiddenStates:
        """As `Rollout.from_pretrained`."""
        told = None if text is None else Text.read(Path(text).expanduser())
        return cls(vae, Denoiser.from_pretrained(name_or_path, dtype=dtype), settings, text=told)

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

    def fingerprint(self) -> Facts:
        """Weights that are used, settings and text."""
        networks = {"vae_sha256": weights_sha256(self.vae, {})} | self.denoiser.fingerprint()
        return {"kind": "hidden_states"} | networks | self.text.fingerprint() | asdict(self.settings)

    def to(self, device: torch.device | str) -> HiddenStates:
        """Move both networks."""
        self.vae.to(device)
        self.denoiser.transformer.to(device)
        return self

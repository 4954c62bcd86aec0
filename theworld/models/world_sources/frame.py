"""The frame alone: the latent that the model's own world encoder makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from theworld.models.weights_digest import weights_sha256
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.source import Facts, SourceSettings, WorldSource


@dataclass(frozen=True, kw_only=True)
class FrameSettings(SourceSettings):
    """There is nothing to choose."""

    kind = "frame"

    def source(self, vae: WorldEncoder, cosmos_model: str, *, text: str | Path | None, dtype: torch.dtype) -> Frame:
        """As `SourceSettings.source` has it; reads nothing more."""
        if text is not None:
            raise ValueError(f"found text={text} for the frame, expected none: it is not told anything; leave it out")
        return Frame(vae)


class Frame(WorldSource):
    """What a model without a source does, as one: for comparisons, and to begin another one from.

    Args:
        vae: The model's world encoder.
    """

    num_frames = 1

    def __init__(self, vae: WorldEncoder) -> None:
        self.vae = vae
        self.latent_channels = vae.latents_mean.shape[1]

    @torch.no_grad()
    def encode(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """As `WorldSource.encode` has it: float32[W, C, 1, h/8, w/8]; nothing in it is random."""
        return self.vae(pixels)

    def fingerprint(self) -> Facts:
        """Its weights."""
        return {"kind": FrameSettings.kind, "vae_sha256": weights_sha256(self.vae, {})}

    def to(self, device: torch.device | str) -> Self:
        """Move the world encoder."""
        self.vae.to(device)
        return self

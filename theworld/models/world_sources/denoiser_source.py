"""What sources with a denoiser have in common: its parts, how they are loaded, and their fingerprint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, cast

import torch

from theworld.models.weights_digest import weights_sha256
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.denoiser import Denoiser
from theworld.models.world_sources.source import Facts, SourceSettings, WorldSource
from theworld.models.world_sources.text import Text

Settings = TypeVar("Settings", bound=SourceSettings)


class DenoiserSource(WorldSource, Generic[Settings]):
    """A source that runs Cosmos-Predict2's denoiser on the latents of its VAE.

    Args:
        vae: Of the same Cosmos model.
        denoiser: Likewise.
        settings: How it is run.
        text: For every image the same; by default none.
    """

    def __init__(self, vae: WorldEncoder, denoiser: Denoiser, settings: Settings, *, text: Text | None = None) -> None:
        self.vae = vae
        self.denoiser = denoiser
        self.settings = settings
        self.text = Text.none(denoiser.text_width) if text is None else text
        self.text.check(denoiser.text_width)
        if vae.latents_mean.shape[1] != denoiser.latent_channels:
            raise ValueError(
                f"found a VAE of {vae.latents_mean.shape[1]} latent channels and a denoiser of "
                f"{denoiser.latent_channels}, expected the same: take both from one Cosmos repository"
            )

    @classmethod
    def from_pretrained(
        cls,
        vae: WorldEncoder,
        name_or_path: str,
        settings: Settings,
        *,
        text: str | Path | None = None,
        dtype: torch.dtype = torch.bfloat16,
    ) -> Self:
        """With the denoiser of a Cosmos-Predict2 repository or folder.

        Args:
            vae: Of the same repository.
            name_or_path: Of which `transformer` and `scheduler` are read.
            settings: As in the constructor.
            text: File that `Text.read` reads; default: no text.
            dtype: Of the denoiser's weights.
        """
        told = None if text is None else Text.read(Path(text).expanduser())
        return cls(vae, Denoiser.from_pretrained(name_or_path, dtype=dtype), settings, text=told)

    def fingerprint(self) -> Facts:
        """Weights of both networks, settings and text."""
        networks = {"vae_sha256": weights_sha256(self.vae, {})} | self.denoiser.fingerprint()
        return {"kind": self.settings.kind} | networks | self.text.fingerprint() | asdict(cast(Any, self.settings))

    def to(self, device: torch.device | str) -> Self:
        """Move both networks; on a GPU the denoiser is compiled, which is made of many small kernels otherwise."""
        self.vae.to(device)
        self.denoiser.transformer.to(device)
        if torch.device(device).type == "cuda":
            self.denoiser.compile_blocks()
        return self

"""What comes next: future latent frames that Cosmos-Predict2 imagines, without ever leaving latent space.

    image ── VAE encoder ── frame 0 ──┐ given
    noise of (seed, key) ── frames 1..k ── denoiser, step by step ── frames 1..k

The same steps as diffusers' `Cosmos2VideoToWorldPipeline`, except that the present frame is the mode of its latent, as
everywhere here, and stays as it is. A world step is one latent frame: four frames of video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.denoiser import SIGMA_MAX, Denoiser
from theworld.models.world_sources.denoiser_source import DenoiserSource
from theworld.models.world_sources.source import SourceSettings, noise
from theworld.models.world_sources.text import Text


@dataclass(frozen=True, kw_only=True)
class RolloutSettings(SourceSettings):
    """How a rollout is sampled.

    Args:
        num_world_steps: k, future latent frames; 0 gives the frame alone and never runs the denoiser.
        num_inference_steps: Denoising steps.
        guidance_scale: As the pipeline counts it: 1 is no guidance; more needs a negative text.
        seed: Of the noise, together with each image's key.
        fps: Frames a second of the video that is imagined.
        given_sigma: The noise that is said to be on the present frame, which has none.
    """

    kind = "rollout"

    num_world_steps: int
    num_inference_steps: int = 35
    guidance_scale: float = 1.0
    seed: int = 0
    fps: int = 16
    given_sigma: float = 1e-4

    def __post_init__(self) -> None:
        least = {"num_world_steps": 0, "num_inference_steps": 2, "guidance_scale": 1, "fps": 1, "given_sigma": 0}
        if not all(getattr(self, name) >= value for name, value in least.items()):  # also of what is no number
            raise ValueError(
                f"found {self}, expected num_world_steps of at least 0, num_inference_steps of at least 2, a "
                "guidance_scale of at least 1 (none), fps of at least 1 and given_sigma of at least 0"
            )

    def source(self, vae: WorldEncoder, cosmos_model: str, *, text: str | Path | None, dtype: torch.dtype) -> Rollout:
        """As `SourceSettings.source` has it; reads the denoiser of `cosmos_model`."""
        return Rollout.from_pretrained(vae, cosmos_model, self, text=text, dtype=dtype)


class Rollout(DenoiserSource[RolloutSettings]):
    """Future frames after each image.

    Args:
        vae: As in `DenoiserSource`, like the three below.
        denoiser: See there.
        settings: How many frames, and how they are sampled.
        text: See there; guidance needs a negative one.
    """

    def __init__(
        self, vae: WorldEncoder, denoiser: Denoiser, settings: RolloutSettings, *, text: Text | None = None
    ) -> None:
        super().__init__(vae, denoiser, settings, text=text)
        self.latent_channels = denoiser.latent_channels
        self.num_frames = 1 + settings.num_world_steps
        if settings.guidance_scale > 1 and self.text.negative is None:
            raise ValueError(
                f"found guidance_scale={settings.guidance_scale} without negative_prompt_embeds, expected them: "
                "guidance leads away from a negative text; give a file that has both, or guidance_scale=1"
            )

    @torch.no_grad()
    def encode(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """As `WorldSource.encode` has it: float32[W, C, 1 + k, h/8, w/8]."""
        present = self.vae(pixels)  # (W, C, 1, h, w)
        if self.settings.num_world_steps == 0:
            return present
        shape = (self.latent_channels, self.num_frames, *present.shape[3:])
        drawn = torch.stack([noise(shape, seed=self.settings.seed, key=key) for key in keys])
        return torch.cat([present, self.denoised(present, drawn.to(pixels.device))[:, :, 1:]], dim=2)

    @torch.no_grad()
    def denoised(self, present: Tensor, drawn: Tensor) -> Tensor:
        """All frames at the end of the sampler.

        Args:
            present: float32[W, C, 1, h, w].
            drawn: float32[W, C, 1 + k, h, w], standard normal.

        Returns:
            float32[W, C, 1 + k, h, w]; frame 0 has the noise of the last step on it.
        """
        sigmas = self.denoiser.sigmas(self.settings.num_inference_steps, present.device)
        latents = drawn * SIGMA_MAX
        for number, sigma in enumerate(sigmas[:-1]):
            direction = (latents - self._clean(latents, sigma, present)) / sigma
            timestep = self.denoiser.scheduler.timesteps[number]
            (latents,) = self.denoiser.scheduler.step(direction, timestep, latents, return_dict=False)
        return latents

    def _clean(self, latents: Tensor, sigma: Tensor, present: Tensor) -> Tensor:
        """The estimate, with guidance."""
        estimate = partial(
            self.denoiser.clean,
            latents,
            sigma,
            given=present,
            given_sigma=self.settings.given_sigma,
            fps=self.settings.fps,
        )
        clean, scale = estimate(text=self.text.spread(latents)), self.settings.guidance_scale
        if scale == 1 or self.text.negative is None:
            return clean
        negative = replace(self.text, prompt=self.text.negative)
        return clean + scale * (clean - estimate(text=negative.spread(latents)))

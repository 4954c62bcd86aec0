"""Cosmos-Predict2's denoiser: its estimate of clean latents, and its hidden states. Nothing else of it is loaded.

    x  latents with noise of size σ, float[W, C, F, h, w]; the transformer sees t = σ / (σ + 1)
    clean(x, σ) = (1 − t) · x − t · transformer((1 − t) · x, t)

The text encoder (11 B parameters) is never needed: text comes as embeddings that were made before, or not at all.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from diffusers import CosmosTransformer3DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from theworld.models.local_parts import check_part
from theworld.models.read_back import wait_before_read_back
from theworld.models.weights_digest import weights_sha256
from theworld.models.world_sources.source import Facts

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002
"""Largest and smallest noise of the published sampler; diffusers' pipeline sets them, no file has them."""

logger = logging.getLogger(__name__)


class Denoiser:
    """The transformer and the noise levels of its sampler, frozen.

    Args:
        transformer: Cosmos-Predict2's, for video.
        scheduler: As the repository has it.
    """

    def __init__(self, transformer: CosmosTransformer3DModel, scheduler: FlowMatchEulerDiscreteScheduler) -> None:
        config = transformer.config
        # One channel of the input says which frames are given; the mask of padding is not counted in `in_channels`.
        if config.in_channels != config.out_channels + 1 or config.patch_size[0] != 1:
            raise ValueError(
                f"found a denoiser with in_channels={config.in_channels}, out_channels={config.out_channels} and "
                f"patch_size={tuple(config.patch_size)}, expected one channel more than it gives and patches of one "
                "frame: a Cosmos-Predict2 Video2World model"
            )
        if not scheduler.config.use_karras_sigmas:
            raise ValueError(
                "found a scheduler without use_karras_sigmas, expected it: Cosmos-Predict2's noise levels are those of "
                "Karras et al."
            )
        self.transformer = transformer.requires_grad_(False).eval()
        self._masks_padding = bool(config.concat_padding_mask)
        # Its own code for that mask needs torchvision; ours is nothing but zeros, which `_run` adds.
        transformer.register_to_config(concat_padding_mask=False)
        self.scheduler = scheduler
        self.scheduler.register_to_config(sigma_max=SIGMA_MAX, sigma_min=SIGMA_MIN)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, *, revision: str | None = None, dtype: torch.dtype = torch.bfloat16
    ) -> Denoiser:
        """From a repository or a folder in diffusers' layout; only `transformer` and `scheduler` are read.

        Raises:
            ValueError: A file of a local folder, or a weight, is missing.
        """
        check_part(name_or_path, "transformer")
        check_part(name_or_path, "scheduler", config="scheduler_config.json", weights=False)
        transformer, info = CosmosTransformer3DModel.from_pretrained(
            name_or_path,
            subfolder="transformer",
            revision=revision,
            torch_dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
        if info["missing_keys"] or info["mismatched_keys"] or info["error_msgs"]:
            raise ValueError(
                f"{name_or_path}/transformer: missing keys {sorted(info['missing_keys'])}, mismatched or broken "
                f"{sorted(map(str, info['mismatched_keys'])) + list(info['error_msgs'])}; expected every weight; the "
                "files are incomplete or belong to another model"
            )
        if info["unexpected_keys"]:
            logger.warning("%s/transformer: unexpected keys %s", name_or_path, sorted(info["unexpected_keys"]))
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
            name_or_path, subfolder="scheduler", revision=revision
        )
        return cls(transformer, scheduler)

    def compile_blocks(self, **options: Any) -> None:
        """Compile each block by itself, once for all that are alike.

        Args:
            options: Of `torch.compile`.
        """
        wait_before_read_back()
        for block in self.transformer.transformer_blocks:
            block.compile(**options)

    @property
    def latent_channels(self) -> int:
        """C."""
        return int(self.transformer.config.out_channels)

    @property
    def text_width(self) -> int:
        """Width of a text embedding."""
        config = self.transformer.config
        return int(config.crossattn_proj_in_channels if config.use_crossattn_projection else config.text_embed_dim)

    def fingerprint(self) -> Facts:
        """Its weights, and what of its config they do not show."""
        config = {name: value for name, value in self.transformer.config.items() if not name.startswith("_")}
        return {"denoiser_sha256": weights_sha256(self.transformer, config)}

    def sigmas(self, steps: int, device: torch.device) -> Tensor:
        """Noise levels of the sampler, falling; float32[steps + 1]. The last step goes nowhere, as in the pipeline."""
        self.scheduler.set_timesteps(sigmas=np.linspace(0, 1, steps), device=device)
        self.scheduler.sigmas[-1] = self.scheduler.sigmas[-2]
        return self.scheduler.sigmas

    def clean(
        self, noisy: Tensor, sigma: Tensor, *, given: Tensor, given_sigma: float, text: Tensor, fps: int
    ) -> Tensor:
        """The estimate of clean latents.

        Args:
            noisy: float32[W, C, F, h, w].
            sigma: Scalar, the size of its noise.
            given: float32[W, C, G, h, w], the first G frames, which are known; G may be 0.
            given_sigma: The size of noise that is said of them.
            text: float[W, L, text width].
            fps: Frames a second of the video.

        Returns:
            float32[W, C, F, h, w], the first G frames as given.
        """
        level = sigma / (sigma + 1)
        seen = torch.cat([given, (noisy * (1 - level))[:, :, given.shape[2] :]], dim=2)
        levels = level.expand(noisy.shape[2]).clone()
        levels[: given.shape[2]] = given_sigma / (given_sigma + 1)
        predicted = self._run(seen, levels, num_given=given.shape[2], text=text, fps=fps).float()
        estimate = (1 - level) * noisy - level * predicted
        return torch.cat([given, estimate[:, :, given.shape[2] :]], dim=2)

    def hidden_states(self, noisy: Tensor, sigma: float, *, block: int, text: Tensor, fps: int) -> Tensor:
        """What a block gives when all frames are noisy: float32[W, width, F, h/2, w/2].

        Args:
            noisy: float32[W, C, F, h, w].
            sigma: The size of its noise.
            block: Which, from 0.
            text: float[W, L, text width].
            fps: Frames a second of the video.
        """
        caught: list[Tensor] = []
        hook = self.transformer.transformer_blocks[block].register_forward_hook(lambda *call: caught.append(call[2]))
        try:
            level = torch.tensor(sigma / (sigma + 1), device=noisy.device)
            self._run(noisy * (1 - level), level.expand(noisy.shape[2]), num_given=0, text=text, fps=fps)
        finally:
            hook.remove()
        _, height, width = self.transformer.config.patch_size
        grid = (noisy.shape[2], noisy.shape[3] // height, noisy.shape[4] // width)
        return caught[0].float().unflatten(1, grid).permute(0, 4, 1, 2, 3).contiguous()

    @torch.no_grad()
    def _run(self, latents: Tensor, levels: Tensor, *, num_given: int, text: Tensor, fps: int) -> Tensor:
        """The transformer; `levels` is float32[F]."""
        dtype = self.transformer.dtype
        marks = latents.new_zeros(len(latents), 1 + self._masks_padding, *latents.shape[2:])  # second: no padding
        marks[:, 0, :num_given] = 1.0
        (predicted,) = self.transformer(
            hidden_states=latents.to(dtype),
            timestep=levels.view(1, 1, -1, 1, 1).expand(len(latents), -1, -1, -1, -1).to(dtype),
            encoder_hidden_states=text.to(dtype),
            fps=fps,
            condition_mask=marks.to(dtype),
            return_dict=False,
        )
        return predicted

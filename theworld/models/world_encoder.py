"""The world encoder: frames → normalised latents of the Cosmos world model. The one place that knows diffusers.

Only the encoder half of `AutoencoderKLWan` is kept; a language model has no use for the decoder.

    W frames given · F latent frames of each (1 today) · C latent channels
"""

from __future__ import annotations

import logging
from typing import cast

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn
from torch.nn import functional as F

from theworld.models.configuration import VaeConfig
from theworld.models.local_parts import check_part

_KEPT = ("encoder.", "quant_conv.")
_RANGE_TOLERANCE = 1e-3

logger = logging.getLogger(__name__)


class FrameConv3d(WanCausalConv3d):
    """A causal convolution that takes a single frame as the 2-D convolution it is.

    Without a past, every temporal tap but the last meets zeros: a third of the products is left, none of the padding.
    """

    def forward(self, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        """`float[B, C, 1, h, w]` → `float[B, C', 1, h', w']`; several frames as diffusers has them."""
        if x.shape[2] != 1 or cache_x is not None:
            return super().forward(x, cache_x)
        columns, _, rows, *_ = self._padding
        tap = self.weight[:, :, -1]  # (C', C, kh, kw)
        return F.conv2d(x.squeeze(2), tap, self.bias, self.stride[1:], padding=(rows, columns)).unsqueeze(2)


class WorldEncoder(nn.Module):
    """Encoder of a Wan VAE with the latent normalisation the world model was trained with.

    Args:
        autoencoder: The VAE to take the encoder from; its decoder is not kept.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, autoencoder: AutoencoderKLWan) -> None:
        super().__init__()
        if autoencoder.config.patch_size is not None:
            raise ValueError(
                f"found a VAE with patch_size={autoencoder.config.patch_size}, expected none (Wan 2.1 and "
                "Cosmos-Predict2); pass another cosmos_model"
            )
        self.config = cast(VaeConfig, {k: v for k, v in autoencoder.config.items() if not k.startswith("_")})
        self.encoder = autoencoder.encoder
        self.quant_conv = autoencoder.quant_conv
        for module in self.modules():
            if type(module) is WanCausalConv3d:
                module.__class__ = FrameConv3d  # the same weights under the same names
        self.register_buffer("latents_mean", _per_channel(autoencoder.config.latents_mean))
        self.register_buffer("latents_std", _per_channel(autoencoder.config.latents_std))

    @classmethod
    def from_config(cls, config: VaeConfig) -> WorldEncoder:
        """A randomly initialised encoder of the given `AutoencoderKLWan` config."""
        return cls(AutoencoderKLWan.from_config(config))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        subfolder: str | None = "vae",
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> WorldEncoder:
        """The encoder of a diffusers checkpoint; a weight of the encoder that the checkpoint lacks is an error.

        Raises:
            ValueError: A file of a local folder, or a weight, is missing.
        """
        check_part(name_or_path, subfolder)
        autoencoder, info = AutoencoderKLWan.from_pretrained(
            name_or_path,
            subfolder=subfolder,
            revision=revision,
            torch_dtype=dtype,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
        missing = sorted(k for k in info["missing_keys"] if k.startswith(_KEPT))
        broken = sorted(str(k) for k in info["mismatched_keys"]) + list(info["error_msgs"])
        if missing or broken:
            raise ValueError(
                f"{name_or_path}/{subfolder}: missing keys {missing}, mismatched or broken {broken}; expected every "
                "weight of the VAE encoder; download the checkpoint again or pass another cosmos_model"
            )
        if info["unexpected_keys"]:
            logger.warning("%s/%s: unexpected keys %s", name_or_path, subfolder, sorted(info["unexpected_keys"]))
        return cls(autoencoder)

    def forward(self, pixels: Tensor) -> Tensor:
        """RGB frames `float[W, 3, h, w]` in [-1, 1] → `float32[W, C, F, h/8, w/8]`, (mode − mean) / std."""
        check_range(pixels)
        if self.latents_mean.dtype != torch.float32:
            raise ValueError(
                f"found latent statistics in {self.latents_mean.dtype}, expected float32: cast the parameters only "
                "(TheWorld.from_pretrained(dtype=...)), not the buffers"
            )
        frames = pixels.unsqueeze(2).to(self.quant_conv.weight.dtype)  # (W, 3, 1, h, w)
        # A single frame needs none of the caches with which diffusers streams a video.
        moments = self.quant_conv(self.encoder(frames))  # (W, 2C, F, h/8, w/8)
        mode = moments.chunk(2, dim=1)[0].float()  # (W, C, F, h/8, w/8)
        # Contiguous whatever the convolutions chose, as cached latents are: the projector rounds by the layout.
        return ((mode - self.latents_mean) / self.latents_std).contiguous()


def check_range(pixels: Tensor) -> None:
    """Refuse frames outside [-1, 1], such as 0..255, which the encoder would take without complaint.

    Frames scaled to [0, 1] lie inside the range and pass: no check of values can tell them from a bright image.
    Only on the CPU and outside `torch.compile`: reading a value of a CUDA tensor would stall the device.
    """
    if pixels.device.type != "cpu" or torch.compiler.is_compiling() or pixels.numel() == 0:
        return
    low, high = (float(x) for x in pixels.detach().aminmax())
    if low < -1 - _RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        raise ValueError(
            f"found world pixels in [{low:.3f}, {high:.3f}], expected [-1, 1]; scale 0..255 with x / 127.5 - 1"
        )


def _per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1, 1)

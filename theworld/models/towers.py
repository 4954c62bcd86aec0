"""The two towers whose output depends on an image alone, so that it can be cached while they are frozen.

I images · N image tokens · S width of SigLIP · C, F latent channels and frames
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from theworld.models.image_features import image_features
from theworld.models.theworld import TheWorld
from theworld.models.weights_digest import weights_sha256

Feature = Literal["image_features", "world_latents"]
"""What a tower gives, under its name in `TheWorld.forward`."""

Precision = Literal["32-true", "bf16-mixed"]
"""How a run computes, by Lightning's names."""

TOWER_GROUPS: dict[Feature, str] = {"image_features": "vision", "world_latents": "world_encoder"}
"""The group of parameters that each tower belongs to; while it is frozen, so is the tower."""

TOWER_FACTS = ("weights_sha256", "weights_dtype", "precision", "device")
"""Names of `encoder_facts`; what a cache says besides is the fingerprint of a world source."""

_VISION_SETTINGS = ("hidden_act", "layer_norm_eps", "num_attention_heads", "patch_size", "image_size")
"""Of SigLIP's config what its weights do not show."""


def tower(model: TheWorld, feature: Feature) -> nn.Module:
    """The module that computes a feature.

    Raises:
        ValueError: The model has no world branch.
    """
    if feature == "image_features":
        return model.gemma.model.vision_tower
    if model.cosmos_encoder is None:
        raise ValueError("found world_latents asked of a model with enable_world=False; leave them out")
    return model.cosmos_encoder.vae


def encode(model: TheWorld, feature: Feature, pixels: Tensor) -> Tensor:
    """A feature of each image, just as `TheWorld.forward` computes it.

    Args:
        model: Its tower need be on the device of `pixels`, nothing else.
        feature: Which.
        pixels: float32[I, 3, H, W], of the tower's own size and range.

    Returns:
        `image_features`: float[I, N, S]; `world_latents`: float32[I, C, F, h/8, w/8].
    """
    return image_features(model.gemma, pixels) if feature == "image_features" else tower(model, feature)(pixels)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """What Lightning runs a step in.

    Raises:
        ValueError: Another precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"found precision={precision!r}, expected one of {get_args(Precision)}")
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16-mixed" else nullcontext()


def encoder_facts(model: TheWorld, feature: Feature, *, precision: str) -> dict[str, str]:
    """All that decides what a tower makes of its pixels, but for versions of libraries.

    Args:
        model: With the weights as they are now.
        feature: Which tower.
        precision: How it runs, by Lightning's name.

    Returns:
        `weights_sha256` (of settings, weights and buffers, in their own type), `weights_dtype`, `precision`, `device`.
    """
    module = tower(model, feature)
    weights = list(module.parameters())
    device = weights[0].device.type
    return {
        "weights_sha256": weights_sha256(module, _settings(model, feature, device=device)),
        "weights_dtype": ", ".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in weights})),
        "precision": precision,
        "device": device,
    }


def _settings(model: TheWorld, feature: Feature, *, device: str) -> dict[str, object]:
    """What the weights of a tower do not show; all of the Wan encoder's show in shapes of weights and in buffers."""
    if feature == "world_latents":
        return {}
    config = model.config.gemma_config
    settings: dict[str, object] = {name: getattr(config.vision_config, name) for name in _VISION_SETTINGS}
    if device == "cuda":
        settings["patches"] = "product"  # see `PatchConv2d`: entries made by the convolution are other bits
    return settings | {"mm_tokens_per_image": config.mm_tokens_per_image}

"""What a user would run instead: Hugging Face's modules with what its libraries offer, on the same samples and loss."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn
from torch.nn import functional as F

from theworld.models.execution import set_execution
from theworld.models.patch_embedding import PatchConv2d, use_patch_products
from theworld.models.theworld import TheWorld
from theworld.models.world_encoder import FrameConv3d
from theworld.training.optimizer_rules import set_trainable
from theworld.types import Batch

BASELINES = {
    "seed": "as the seed: a mask tensor, a KV cache, float32 logits of every row, foreach AdamW, a 3-D VAE",
    "liger": "Hugging Face + Liger's RMSNorm, GeGLU and RoPE; logits of target rows only, no cache, fused AdamW",
    "liger_recompute": "the same, every decoder layer recomputed",
    "compiled": "Hugging Face, each layer compiled; otherwise as `liger`",
    "liger_flex": "`liger` with flex attention, compiled",
}


def baseline(name: str, model: TheWorld, batch: Batch, trained: set[str]) -> Callable[[], Tensor]:
    """One training step of the named baseline; returns the loss before the step.

    Args:
        name: One of `BASELINES`.
        model: Set up for it.
        batch: Padded rows, on the device.
        trained: Groups of parameters that train.
    """
    set_trainable(model, trained)
    model.attention_backend = "flex" if name == "liger_flex" else "sdpa"
    as_published(model, True)
    if name.startswith("liger"):
        liger(model)
    set_execution(model, compiled=name == "compiled", recompute="full" if name.endswith("recompute") else "none")
    parameters = [p for p in model.parameters() if p.requires_grad]
    seed = name == "seed"
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, foreach=seed, fused=not seed)
    inputs = {
        "token_type_ids": batch.token_type_ids,
        "document_ids": batch.document_ids,
        "pixel_values": batch.pixel_values,
        "world_pixel_values": batch.world_pixel_values,
    }

    def step() -> Tensor:
        if seed:
            logits = model(batch.input_ids, **inputs, use_cache=True).logits.float()
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten())
        else:
            loss = model(batch.input_ids, **inputs, labels=batch.labels, target_positions=batch.target_positions).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def as_published(model: TheWorld, on: bool) -> None:
    """Run convolutions as diffusers and transformers do, or as the smaller products that they are for what we give."""
    for module in model.modules():
        if type(module) in (WanCausalConv3d, FrameConv3d):
            module.__class__ = WanCausalConv3d if on else FrameConv3d
        elif type(module) is PatchConv2d and on:
            module.__class__ = nn.Conv2d
    if not on:
        use_patch_products(model.gemma.model.vision_tower)


def liger(model: TheWorld) -> None:
    """Patch Gemma's modules in place, as `apply_liger_kernel_to_gemma3` does for a loaded model."""
    os.environ["LIGER_KERNEL_BACKEND"] = (
        "triton"  # its CuTe norm, taken where that compiler is installed, fails on views
    )
    from liger_kernel.transformers import apply_liger_kernel_to_gemma3

    apply_liger_kernel_to_gemma3(
        rope=True,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
        layer_norm=True,
        rms_norm=True,
        geglu=True,
        model=model.gemma,
    )

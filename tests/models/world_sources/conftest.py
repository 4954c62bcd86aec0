"""A Cosmos-Predict2 of diffusers' own classes, small and random, in diffusers' layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel, FlowMatchEulerDiscreteScheduler

TEXT_WIDTH = 12


def new_transformer() -> CosmosTransformer3DModel:
    torch.manual_seed(1)
    transformer = CosmosTransformer3DModel(
        in_channels=17,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=24,
        num_layers=3,
        mlp_ratio=2.0,
        text_embed_dim=TEXT_WIDTH,
        adaln_lora_dim=8,
        max_size=(8, 32, 32),
        rope_scale=(1.0, 3.0, 3.0),
        extra_pos_embed_type=None,
    )
    with torch.no_grad():  # diffusers begins with zeros in places, where an error would not show
        for parameter in transformer.parameters():
            parameter.normal_(std=0.2) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return transformer


def new_vae() -> AutoencoderKLWan:
    """The spread of its latents is next to nothing, so that a sample, which diffusers takes, is the mode."""
    torch.manual_seed(2)
    vae = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1)
    with torch.no_grad():
        vae.quant_conv.weight[16:] = 0.0
        vae.quant_conv.bias[16:] = -60.0
    return vae


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the parts `vae`, `transformer` and `scheduler`."""
    folder = tmp_path_factory.mktemp("cosmos")
    new_vae().save_pretrained(folder / "vae")
    new_transformer().save_pretrained(folder / "transformer")
    new_scheduler().save_pretrained(folder / "scheduler")
    return folder

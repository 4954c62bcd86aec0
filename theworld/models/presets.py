"""The two shapes this project uses: the tiny one it ships and Gemma 3 4B."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import Gemma3Config

if TYPE_CHECKING:
    from theworld.models.configuration import ConfigFields, VaeConfig


def tiny() -> ConfigFields:
    """That of `theworld-tiny`, but for the width of a few parts."""
    gemma = Gemma3Config(
        text_config={
            "vocab_size": 1024,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "max_position_embeddings": 4096,
            "sliding_window": 256,
            "pad_token_id": 0,
            "eos_token_id": [1, 5],
            "bos_token_id": 2,
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 96,
            "patch_size": 8,
            "vision_use_head": False,
        },
        mm_tokens_per_image=36,
        boi_token_index=6,
        eoi_token_index=7,
        image_token_index=8,
    )
    vae: VaeConfig = {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 1}
    return {
        "gemma_config": gemma,
        "vae_config": vae,
        "world_image_size": 64,
        "start_of_world_token_id": 9,
        "world_token_id": 10,
        "end_of_world_token_id": 11,
    }


def gemma3_4b() -> ConfigFields:
    """Gemma 3 4B with the VAE of Cosmos-Predict2."""
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    }
    gemma = Gemma3Config(
        text_config={
            "vocab_size": 262_208,
            "hidden_size": 2560,
            "intermediate_size": 10_240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "max_position_embeddings": 131_072,
            "sliding_window": 1024,
            "rope_parameters": rope,
            "pad_token_id": 0,
            "eos_token_id": [1, 106],
            "bos_token_id": 2,
        },
        vision_config={
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 896,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=256,
        boi_token_index=255_999,
        eoi_token_index=256_000,
        image_token_index=262_144,
    )
    return {
        "gemma_config": gemma,
        "start_of_world_token_id": 6,
        "world_token_id": 7,
        "end_of_world_token_id": 8,
    }


PRESETS = {"tiny": tiny, "gemma3-4b": gemma3_4b}
"""Fields of `TheWorldConfig` by the shape's name."""

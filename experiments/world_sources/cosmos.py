"""A Cosmos-Predict2 2B of random weights at true dimensions, for runs whose speed and memory matter only.

python -m experiments.world_sources.cosmos /local/disk/cosmos        # diffusers' layout, 4 GB; transformer, scheduler
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import CosmosTransformer3DModel, FlowMatchEulerDiscreteScheduler

TRUE = {
    "in_channels": 17,
    "out_channels": 16,
    "num_attention_heads": 16,
    "attention_head_dim": 128,
    "num_layers": 28,
    "mlp_ratio": 4.0,
    "text_embed_dim": 1024,
    "adaln_lora_dim": 256,
    "max_size": (128, 240, 240),
    "patch_size": (1, 2, 2),
    "rope_scale": (1.0, 3.0, 3.0),
    "concat_padding_mask": True,
    "extra_pos_embed_type": None,
}
"""The published config of nvidia/Cosmos-Predict2-2B-Video2World's transformer, as diffusers' converter writes it."""

TINY = TRUE | {"num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 3, "mlp_ratio": 2.0}
TINY |= {"text_embed_dim": 12, "adaln_lora_dim": 8, "max_size": (8, 32, 32)}


def random_transformer(*, tiny: bool, device: str) -> CosmosTransformer3DModel:
    """In bfloat16 (tiny: float32)."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32 if tiny else torch.bfloat16)
    with torch.device(device):
        transformer = CosmosTransformer3DModel(**(TINY if tiny else TRUE))
    torch.set_default_dtype(torch.float32)
    return transformer


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    random_transformer(tiny=arguments.tiny, device=device).save_pretrained(arguments.folder / "transformer")
    scheduler().save_pretrained(arguments.folder / "scheduler")


if __name__ == "__main__":
    main()

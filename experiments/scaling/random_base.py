"""A base of random weights at true dimensions, as a folder that `fit` starts from: for runs whose speed matters only.

    python experiments/scaling/random_base.py /local/disk/base            # 8.7 GB, bfloat16; on a GPU 20 s
    python experiments/scaling/random_base.py /local/disk/base --tiny     # the tiny base's dimensions

Gemma 3 4B and Cosmos' encoder with the tokenizer of `theworld-tiny`, whose special tokens the config names: real text,
true shapes, no download.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, Gemma3Config, Gemma3ImageProcessorPil

from theworld.assets import TINY_BASE, resolve
from theworld.data.processor import TheWorldProcessor
from theworld.models.configuration import TheWorldConfig
from theworld.models.theworld import TheWorld


def config_of(*, tiny: bool) -> TheWorldConfig:
    """The shape, with the ids of the tiny base's tokenizer."""
    config = TheWorldConfig.preset("tiny" if tiny else "gemma3-4b")
    known = Gemma3Config.from_pretrained(resolve(TINY_BASE))
    for name in ("boi_token_index", "eoi_token_index", "image_token_index"):
        setattr(config.gemma_config, name, getattr(known, name))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config.gemma_config.text_config, name, getattr(known.text_config, name))
    tokenizer = AutoTokenizer.from_pretrained(resolve(TINY_BASE), trust_remote_code=False)
    for name, token in (("start_of_world", "<unused0>"), ("world", "<unused1>"), ("end_of_world", "<unused2>")):
        setattr(config, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    return config


def random_weights(config: TheWorldConfig) -> TheWorld:
    """bfloat16, on the GPU if there is one."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = TheWorld(config)
    torch.set_default_dtype(torch.float32)
    torch.nn.init.normal_(model.gemma.model.multi_modal_projector.mm_input_projection_weight, std=0.02)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    config = config_of(tiny=arguments.tiny)
    random_weights(config).save_pretrained(arguments.folder)
    side = config.gemma_config.vision_config.image_size
    TheWorldProcessor(
        AutoTokenizer.from_pretrained(resolve(TINY_BASE), trust_remote_code=False),
        Gemma3ImageProcessorPil.from_pretrained(resolve(TINY_BASE), size={"height": side, "width": side}),
        num_image_tokens=config.gemma_config.mm_tokens_per_image,
        num_world_tokens=config.num_world_tokens,
        world_image_size=config.world_image_size,
    ).save_pretrained(arguments.folder)


if __name__ == "__main__":
    main()

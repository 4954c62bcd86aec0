"""Real parts that are too small to take time: a Gemma 3, a Wan VAE, a tokenizer like Gemma's, and OSD files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    PreTrainedTokenizerFast,
)

from theworld.models.configuration import TheWorldConfig
from theworld.models.theworld import TheWorld
from theworld.models.world_sources.source import Facts, WorldSource
from theworld.types import Batch

SPECIALS = [
    *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>", *(f"<unused{i}>" for i in range(8))),
]
BOS, START, END, BOI, EOI, IMAGE, SOW, WORLD, EOW = 2, 4, 5, 6, 7, 8, 9, 10, 11
IMAGE_SIDE, IMAGE_TOKENS = 16, 4
WORLD_SIDE, WORLD_TOKENS = 16, 4
VAE_CONFIG = {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
"""Gives `WORLD_TOKENS` latent cells for a frame of `WORLD_SIDE` pixels."""


def gemma_config(**text: int) -> Gemma3Config:
    """Six layers, so that the last one is global; a window shorter than the tests' sequences. `text` overrides."""
    text_config = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 9,
        "pad_token_id": 0,
        "eos_token_id": [1, END],
        "initializer_range": 0.2,
    }
    vision_config = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIDE,
        "patch_size": 4,
        "vision_use_head": False,
    }
    return Gemma3Config(
        text_config=text_config | text,
        vision_config=vision_config,
        mm_tokens_per_image=IMAGE_TOKENS,
        boi_token_index=BOI,
        eoi_token_index=EOI,
        image_token_index=IMAGE,
    )


def randomise(model: torch.nn.Module) -> None:
    """Give zero-initialised weights values (norms, Gemma's image projection), so that every path carries a signal."""
    with torch.no_grad():
        for parameter in model.parameters():
            if bool((parameter == 0).all()):
                parameter.normal_(std=0.1)


def tiny_config(**overrides) -> TheWorldConfig:
    settings = {
        "gemma_config": gemma_config(),
        "vae_config": VAE_CONFIG,
        "world_image_size": WORLD_SIDE,
        "start_of_world_token_id": SOW,
        "world_token_id": WORLD,
        "end_of_world_token_id": EOW,
    }
    return TheWorldConfig(**(settings | overrides))


def make_model(seed: int = 0, **overrides) -> TheWorld:
    torch.manual_seed(seed)
    model = TheWorld(tiny_config(**overrides)).eval()
    randomise(model)
    return model


class NegativeFrames(WorldSource):
    """Frame f holds the frame averaged to cells, times (-1)^f, in every channel; notes the keys it was asked for."""

    latent_channels = 16

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self.keys: list[str] = []

    def encode(self, pixels: torch.Tensor, keys: Sequence[str]) -> torch.Tensor:
        self.keys += keys
        cells = torch.nn.functional.avg_pool2d(pixels.mean(1, keepdim=True), 8)  # (W, 1, h, w)
        signs = torch.tensor([(-1.0) ** frame for frame in range(self.num_frames)]).view(1, 1, -1, 1, 1)
        return (cells[:, :, None] * signs).expand(-1, 16, -1, -1, -1).contiguous()

    def fingerprint(self) -> Facts:
        return {"source": "negatives"}

    def to(self, device: torch.device | str) -> WorldSource:
        return self


def inputs(batch: Batch, *, labels: bool = False) -> dict[str, torch.Tensor]:
    """Keyword arguments of `TheWorld.forward`."""
    names = ["input_ids", "token_type_ids", "position_ids", "document_ids", "pixel_values", "world_pixel_values"]
    return {n: getattr(batch, n) for n in names + (["labels", "target_positions"] if labels else [])}


def make_tokenizer(pieces: Sequence[str] = (), chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """BPE with byte fallback and Gemma's special tokens at their usual ids; merges build exactly `pieces`."""
    letters = [chr(c) for c in range(33, 127)]
    merges = []
    vocab = dict.fromkeys([*SPECIALS, *(f"<0x{b:02X}>" for b in range(256)), *letters, "▁"])
    for piece in pieces:
        for end in range(2, len(piece) + 1):
            pair = (piece[: end - 1], piece[end - 1])
            if pair not in merges:
                merges.append(pair)
        for end in range(1, len(piece) + 1):
            vocab.setdefault(piece[:end])
    vocab = {token: number for number, token in enumerate(vocab)}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )
    wrapped.chat_template = chat_template
    return wrapped


def make_image_processor(side: int) -> Gemma3ImageProcessorPil:
    """Gemma 3's, for square images of `side` pixels."""
    size = {"height": side, "width": side}
    return Gemma3ImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_pan_and_scan=False)


def write_base(
    folder: Path, config: Gemma3Config, tokenizer: PreTrainedTokenizerFast
) -> tuple[Gemma3ForConditionalGeneration, AutoencoderKLWan]:
    """Write a base as its makers do, with the `save_pretrained` of transformers and diffusers; the same every time."""
    torch.manual_seed(1)
    gemma = Gemma3ForConditionalGeneration(config).eval()
    randomise(gemma)
    gemma.save_pretrained(folder)
    vae = AutoencoderKLWan.from_config(VAE_CONFIG).eval()
    vae.save_pretrained(folder / "vae")
    tokenizer.save_pretrained(folder)
    make_image_processor(IMAGE_SIDE).save_pretrained(folder)
    return gemma, vae


QUIET_TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Settings of a Lightning trainer that computes on the CPU and writes and shows nothing."""


def osd_row(
    number: int, turns: int = 1, *, answer: str = "Yes, Region [0] is left of Region [1].", **changes: object
) -> dict[str, object]:
    """One valid row about image `img<number>` with two regions, each mentioned once a turn; None removes a key."""
    conversations = []
    for turn in range(turns):
        opening = "<image>\n" if turn == 0 else ""
        text = f"{opening}Is <mask> <depth> left of <mask> <depth>?{'?' * (number % 7)}"
        conversations += [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    row = {
        "id": f"row-{number}",
        "filename": f"img{number}",
        "conversations": conversations,
        "bbox": [[2, 3, 12, 20], [20, 10, 38, 28]] * turns,
        "qa_info": {"type": "qualitative", "category": "left_predicate"},
    }
    return {key: value for key, value in (row | changes).items() if value is not None}


def write_osd(folder: Path, rows: Sequence[dict[str, object]], name: str = "train.json") -> tuple[Path, Path]:
    """Write rows, and an image of 40 x 30 pixels for each that names one of its own; (path, image folder)."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for number, row in enumerate(rows):
        filename = row.get("filename")
        if isinstance(filename, str) and filename.startswith("img"):
            pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{filename}.png")
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path, images

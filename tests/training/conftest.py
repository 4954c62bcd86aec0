"""A tiny real base on disk, OSD files, and the real data module, model and trainer over them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from lightning.pytorch import Callback, Trainer, seed_everything
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    PreTrainedTokenizerFast,
)

from theworld.data.datamodule import OSDDataModule
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.module import TheWorldModule
from theworld.training.stages import LearningRates, Stage

SPECIALS = [
    *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>", *(f"<unused{i}>" for i in range(3))),
]


def _gemma_config() -> Gemma3Config:
    return Gemma3Config(
        text_config={
            "vocab_size": 280,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 256,
            "pad_token_id": 0,
            "eos_token_id": [1, 5],
            "initializer_range": 0.2,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "vision_use_head": False,
        },
        mm_tokens_per_image=4,
        boi_token_index=6,
        eoi_token_index=7,
        image_token_index=8,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    pieces = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Gemma 3 base with a Wan VAE beside it, as transformers and diffusers write them.

    Two layers are both sliding ones, so the window must span a sample for world tokens to reach the answer.
    """
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    gemma = Gemma3ForConditionalGeneration(_gemma_config())
    with torch.no_grad():
        for parameter in gemma.parameters():
            if bool((parameter == 0).all()):  # Gemma's norms and image projection start at zero: no signal would pass
                parameter.normal_(std=0.1)
    gemma.save_pretrained(folder)
    vae = {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    AutoencoderKLWan.from_config(vae).save_pretrained(folder / "vae")
    _tokenizer().save_pretrained(folder)
    size = {"height": 16, "width": 16}
    Gemma3ImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def osd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Twelve training rows, three validation rows and five test rows, with their images; paths by data argument."""
    folder = tmp_path_factory.mktemp("osd")
    arguments = {}
    for split, rows in (("train", 12), ("val", 3), ("test", 5)):
        images = folder / split
        images.mkdir()
        for number in range(rows):
            pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{split}{number}.png")
        content = [_row(split, number, turns=1 if split == "test" else 1 + number % 2) for number in range(rows)]
        (folder / f"{split}.json").write_text(json.dumps(content))
        arguments |= {f"{split}_path": str(folder / f"{split}.json"), f"{split}_images": str(images)}
    return arguments


def _row(split: str, number: int, turns: int) -> dict[str, object]:
    conversations = []
    for turn in range(turns):
        question = "<image>\n" * (turn == 0) + "Is <mask> <depth> left of <mask> <depth>?"
        answer = ("Yes", "No")[(number + turn) % 2] + "." * (1 + number % 3)
        conversations += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {
        "id": f"{split}-{number}",
        "filename": f"{split}{number}",
        "conversations": conversations,
        "bbox": [[1, 1, 10, 10], [12, 8, 22, 20]] * turns,
        "qa_info": {"type": "qualitative", "category": "left_predicate"},
    }


@pytest.fixture
def stages() -> dict[str, Stage]:
    """Projector, then vision, then language: seven steps in all."""
    return {
        "projection": Stage(learning_rates=LearningRates(world_projector=1e-2), max_steps=2),
        "vision": Stage(learning_rates=LearningRates(world_projector=1e-2, vision=1e-3), max_steps=2, warmup_steps=1),
        "language": Stage(
            learning_rates=LearningRates(world_projector=1e-2, language=1e-3), max_steps=3, warmup_steps=1
        ),
    }


MODEL = {"world_image_size": 16, "dtype": "float32", "max_new_tokens": 3}
DATA = {"num_world_tokens": 4, "world_image_size": 16, "max_seq_length": 192, "token_budget": 256}


@pytest.fixture
def make_module(base: str, stages: dict[str, Stage]) -> Callable[..., TheWorldModule]:
    """A module over the tiny base; its projector is new, from the same seed every time."""

    def make(**changes: object) -> TheWorldModule:
        seed_everything(0, verbose=False)
        return TheWorldModule(**({"base": base, "stages": stages} | MODEL | changes))

    return make


@pytest.fixture
def make_data(base: str, osd: dict[str, str]) -> Callable[..., OSDDataModule]:
    def make(**changes: object) -> OSDDataModule:
        return OSDDataModule(**({"base": base} | osd | DATA | changes))

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """A CPU trainer with the stage schedule and the given callbacks; no validation of its own, no checkpoints."""

    def make(*callbacks: Callback, **changes: object) -> Trainer:
        settings = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": -1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            "log_every_n_steps": 1,
            "default_root_dir": tmp_path,
            "callbacks": [StageSchedule(), *callbacks],
        }
        return Trainer(**(settings | changes))

    return make

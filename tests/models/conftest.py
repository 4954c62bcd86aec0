"""A real Gemma 3, a real Wan VAE and the fused model, all too small to take time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from tokenizers import Tokenizer, models
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedTokenizerFast

from theworld.models.configuration import TheWorldConfig
from theworld.models.theworld import TheWorld
from theworld.types import IGNORE_INDEX, PADDING_DOCUMENT, Batch, Sample, TokenType

BOS, START, END, BOI, EOI, IMAGE, SOW, WORLD, EOW = 2, 4, 5, 6, 7, 8, 9, 10, 11
IMAGE_TOKENS, WORLD_TOKENS = 4, 4
VAE_CONFIG = {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}


def gemma_config() -> Gemma3Config:
    """Six layers, so that the last one is global; a window shorter than the test sequences."""
    return Gemma3Config(
        text_config={
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
            "eos_token_id": [1, 5],
            "initializer_range": 0.2,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "vision_use_head": False,
        },
        mm_tokens_per_image=IMAGE_TOKENS,
        boi_token_index=BOI,
        eoi_token_index=EOI,
        image_token_index=IMAGE,
    )


def tiny_config(**overrides) -> TheWorldConfig:
    settings = {
        "gemma_config": gemma_config(),
        "vae_config": VAE_CONFIG,
        "world_image_size": 16,
        "start_of_world_token_id": SOW,
        "world_token_id": WORLD,
        "end_of_world_token_id": EOW,
    }
    return TheWorldConfig(**(settings | overrides))


def randomise(model: torch.nn.Module) -> None:
    """Give zero-initialised weights values (norms, Gemma's image projection), so that every path carries a signal."""
    with torch.no_grad():
        for parameter in model.parameters():
            if bool((parameter == 0).all()):
                parameter.normal_(std=0.1)


def make_model(seed: int = 0, **overrides) -> TheWorld:
    torch.manual_seed(seed)
    model = TheWorld(tiny_config(**overrides)).eval()
    randomise(model)
    return model


@pytest.fixture(scope="session")
def model() -> TheWorld:
    """Shared by tests that leave its weights alone."""
    return make_model()


def make_sample(name: str, *, text: int, answer: int, seed: int, world: bool = True, image: bool = True) -> Sample:
    """[BOS] [SOW world EOW] START [BOI image EOI] text END | answer END, random text; the answer is the target."""
    g = torch.Generator().manual_seed(seed)
    words = torch.randint(16, 64, (text + answer,), generator=g).tolist()
    ids = [BOS] + ([SOW] + [WORLD] * WORLD_TOKENS + [EOW] if world else []) + [START]
    ids += [BOI] + [IMAGE] * IMAGE_TOKENS + [EOI] if image else []
    ids += words[:text] + [END]
    prompt = len(ids)
    ids += words[text:] + ([END] if answer else [])
    input_ids = torch.tensor(ids)
    types = torch.full_like(input_ids, TokenType.TEXT)
    types[input_ids == IMAGE] = TokenType.IMAGE
    types[input_ids == WORLD] = TokenType.WORLD
    return Sample(
        id=name,
        input_ids=input_ids,
        labels=torch.where(torch.arange(len(ids)) < prompt, IGNORE_INDEX, input_ids),
        token_type_ids=types,
        pixel_values=torch.randn(int(image), 3, 16, 16, generator=g),
        world_pixel_values=torch.rand(int(world), 3, 16, 16, generator=g) * 2 - 1,
    )


def _rows(samples: list[Sample], rows: list[list[tuple[int, int]]], length: int, side: str) -> Batch:
    """Lay (sample, document) pairs into rows of `length`, padding on `side`."""
    shape = (len(rows), length)
    fields = {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, IGNORE_INDEX),
        "token_type_ids": torch.zeros(shape, dtype=torch.long),
        "position_ids": torch.zeros(shape, dtype=torch.long),
        "document_ids": torch.full(shape, PADDING_DOCUMENT),
    }
    for r, row in enumerate(rows):
        at = length - sum(len(samples[s].input_ids) for s, _ in row) if side == "left" else 0
        for s, document in row:
            here = slice(at, at := at + len(samples[s].input_ids))
            for name in ("input_ids", "labels", "token_type_ids"):
                fields[name][r, here] = getattr(samples[s], name)
            fields["position_ids"][r, here] = torch.arange(len(samples[s].input_ids))
            fields["document_ids"][r, here] = document
    targets = torch.nonzero(fields["labels"].flatten() != IGNORE_INDEX).flatten() - 1
    return Batch(
        **fields,
        pixel_values=torch.cat([s.pixel_values for s in samples]),
        world_pixel_values=torch.cat([s.world_pixel_values for s in samples]),
        target_positions=targets,
        step_target_tokens=len(targets),
        ids=tuple(s.id for s in samples),
    )


def packed(samples: list[Sample], length: int) -> Batch:
    return _rows(samples, [[(i, i) for i in range(len(samples))]], length, "right")


def padded(samples: list[Sample], side: str = "left", length: int | None = None) -> Batch:
    longest = max(len(s.input_ids) for s in samples)
    return _rows(samples, [[(i, 0)] for i in range(len(samples))], length or longest, side)


def inputs(batch: Batch, *, labels: bool = False) -> dict[str, torch.Tensor]:
    """Keyword arguments of `TheWorld.forward`."""
    names = ["input_ids", "token_type_ids", "position_ids", "document_ids", "pixel_values", "world_pixel_values"]
    return {n: getattr(batch, n) for n in names + (["labels", "target_positions"] if labels else [])}


@pytest.fixture(scope="session")
def write_base() -> Callable[[Path], tuple[Gemma3ForConditionalGeneration, AutoencoderKLWan]]:
    """Write a base as its makers do: transformers' and diffusers' own `save_pretrained`, and a tokenizer."""

    def write(folder: Path) -> tuple[Gemma3ForConditionalGeneration, AutoencoderKLWan]:
        torch.manual_seed(1)
        gemma = Gemma3ForConditionalGeneration(gemma_config()).eval()
        randomise(gemma)
        gemma.save_pretrained(folder)
        vae = AutoencoderKLWan.from_config(VAE_CONFIG).eval()
        vae.save_pretrained(folder / "vae")
        names = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>"]
        names += ["<end_of_image>", "<image_soft_token>", "<unused0>", "<unused1>", "<unused2>"]
        vocabulary = Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=vocabulary, unk_token="<unk>", pad_token="<pad>").save_pretrained(
            folder
        )
        return gemma, vae

    return write

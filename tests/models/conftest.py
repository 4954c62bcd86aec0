"""The fused model over the tiny real parts, and samples and batches for it, laid out without the collator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from transformers import Gemma3ForConditionalGeneration

from tests.tiny import (
    BOI,
    BOS,
    END,
    EOI,
    EOW,
    IMAGE,
    IMAGE_SIDE,
    IMAGE_TOKENS,
    SOW,
    START,
    WORLD,
    WORLD_SIDE,
    WORLD_TOKENS,
    gemma_config,
    make_model,
    make_tokenizer,
    write_base,
)
from theworld.data.world_block import without_world_tokens
from theworld.models.theworld import TheWorld
from theworld.types import IGNORE_INDEX, PADDING_DOCUMENT, Batch, Sample, TokenType


@pytest.fixture(scope="session")
def model() -> TheWorld:
    """Shared by tests that leave its weights alone."""
    return make_model()


@pytest.fixture
def untouched_compiler(monkeypatch) -> Iterator[None]:
    """PyTorch's compiler as it comes, before and after."""
    from torch._inductor.choices import InductorChoices  # two seconds, for the few tests that ask for it
    from torch._inductor.codegen.triton import TritonKernel

    monkeypatch.setattr(TritonKernel, "load", inspect.unwrap(TritonKernel.load))
    usual = inspect.unwrap(InductorChoices.should_use_persistent_reduction)
    monkeypatch.setattr(InductorChoices, "should_use_persistent_reduction", staticmethod(usual))
    torch._dynamo.reset()
    with torch.compiler.config.patch(cache_key_tag=""):
        yield
    torch._dynamo.reset()


def make_sample(
    name: str, *, text: int, answer: int, seed: int, world: bool = True, image: bool = True, frames: int = 0
) -> Sample:
    """[BOS] [SOW world EOW] START [BOI image EOI] text END | answer END, random text; the answer is the target.

    With `frames` the sample has latents of that many frames, and their placeholders, in place of world pixels.
    """
    g = torch.Generator().manual_seed(seed)
    words = torch.randint(16, 64, (text + answer,), generator=g).tolist()
    ids = [BOS] + ([SOW] + [WORLD] * (WORLD_TOKENS * max(frames, 1)) + [EOW] if world else []) + [START]
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
        pixel_values=torch.randn(int(image), 3, IMAGE_SIDE, IMAGE_SIDE, generator=g),
        world_pixel_values=torch.rand(int(world and not frames), 3, WORLD_SIDE, WORLD_SIDE, generator=g) * 2 - 1,
        world_latents=torch.randn(1, 16, frames, 2, 2, generator=g) if frames else None,
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
    latents = [s.world_latents for s in samples if s.world_latents is not None]
    return Batch(
        **fields,
        pixel_values=torch.cat([s.pixel_values for s in samples]),
        world_pixel_values=torch.cat([s.world_pixel_values for s in samples]),
        world_latents=torch.cat(latents) if latents else None,
        target_positions=targets,
        step_target_tokens=len(targets),
        ids=tuple(s.id for s in samples),
    )


def packed(samples: list[Sample], length: int) -> Batch:
    return _rows(samples, [[(i, i) for i in range(len(samples))]], length, "right")


def padded(samples: list[Sample], side: str = "left", length: int | None = None) -> Batch:
    longest = max(len(s.input_ids) for s in samples)
    return _rows(samples, [[(i, 0)] for i in range(len(samples))], length or longest, side)


def drawn_sample(name: str, tokens: int, *, steps: int = 0, latents: bool = True, seed: int = 0) -> Sample:
    """A sample that drew so many world placeholders a frame, with latents of 64 cells a frame, or pixels for them."""
    frames, generator = 1 + steps, torch.Generator().manual_seed(100 + seed)
    whole = make_sample(name, text=14 + seed, answer=3 + seed, seed=seed, frames=16 * frames)
    seen = {"world_latents": torch.randn(1, 16, frames, 8, 8, generator=generator)}
    if not latents:
        seen = {"world_latents": None, "world_pixel_values": torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1}
    return without_world_tokens(replace(whole, **seen), (64 - tokens) * frames)


def filled_row(samples: list[Sample]) -> Batch:
    """One row without padding."""
    lengths = tuple(len(sample.input_ids) for sample in samples)
    return replace(packed(samples, sum(lengths)), document_lengths=lengths)


@pytest.fixture(name="write_base", scope="session")
def _write_base() -> Callable[[Path], tuple[Gemma3ForConditionalGeneration, AutoencoderKLWan]]:
    """Write a base into a folder; returns what was written."""
    return lambda folder: write_base(folder, gemma_config(), make_tokenizer())

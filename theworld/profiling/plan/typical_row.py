"""One packed row as the data pipeline makes it, of samples whose lengths are known or typical.

[BOS][SOW] world [EOW] text [image × 256] text          a sample, its last tokens are the targets
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from theworld.data.packing.collator import pack
from theworld.models.configuration import TheWorldConfig
from theworld.types import IGNORE_INDEX, Batch, Sample, TokenType

TYPICAL_TEXT = 420
"""Text tokens of a sample of OSD, with what opens its turns; `data.token_budget`'s default holds three such samples."""

TARGET_SHARE = 0.5
"""Share of the text that is answers: 360 of 721 tokens in `experiments/speed`."""

SHORTEST_TEXT = 16
"""Text without which there is no question and no answer."""


@dataclass(frozen=True)
class SampleLength:
    """How long one sample is.

    Attributes:
        tokens: All of them, placeholders included.
        targets: Those that carry loss.
        images: 0 or 1.
    """

    tokens: int
    targets: int
    images: int = 1


@dataclass(frozen=True)
class CachedTowers:
    """Whose features come from a cache, in place of pixels."""

    image_features: bool = False
    world_latents: bool = False


def placeholder_tokens(config: TheWorldConfig) -> int:
    """Tokens of a sample that are no text: the image, and world tokens with the two at their sides."""
    world = config.num_world_tokens + 2 if config.enable_world else 0
    return config.gemma_config.mm_tokens_per_image + world


def typical_samples(
    config: TheWorldConfig, *, token_budget: int, max_seq_length: int, text_tokens: int = TYPICAL_TEXT
) -> tuple[SampleLength, ...]:
    """As many typical samples as a row holds, a little longer than typical so that they fill it.

    Args:
        config: Of the model.
        token_budget: Tokens of the row.
        max_seq_length: Longest sample.
        text_tokens: Of a typical sample.

    Raises:
        ValueError: Not one sample fits.
    """
    fixed = placeholder_tokens(config)
    least, most = fixed + SHORTEST_TEXT, min(max_seq_length, token_budget)
    if least > most:
        raise ValueError(
            f"found {fixed} tokens of placeholders in every sample ({config.num_world_tokens} world tokens, "
            f"{config.gemma_config.mm_tokens_per_image} of the image), expected at most {most - SHORTEST_TEXT} with "
            f"data.max_seq_length={max_seq_length} and data.token_budget={token_budget}: a sample of {least} tokens, "
            "the shortest, is refused; raise both, or use fewer world tokens"
        )
    count = max(1, token_budget // min(fixed + text_tokens, most))
    length = min(token_budget // count, max_seq_length)
    targets = max(1, round((length - fixed) * TARGET_SHARE))
    return (SampleLength(length, targets),) * count


def packed_row(
    config: TheWorldConfig, samples: Sequence[SampleLength], *, token_budget: int, cached: CachedTowers
) -> Batch:
    """The samples in a row, on the CPU. Its numbers mean nothing; lengths and kinds of tokens are the true ones."""
    made = [_sample(config, sample, cached) for sample in samples]
    targets = sum(sample.targets for sample in samples)
    return pack(made, budget=token_budget, pad_token_id=0, step_target_tokens=max(targets, 1))


def _sample(config: TheWorldConfig, length: SampleLength, cached: CachedTowers) -> Sample:
    ids, types = _tokens(config, length)
    labels = torch.full_like(ids, IGNORE_INDEX)
    labels[len(ids) - length.targets :] = 1
    vision, world = config.gemma_config.vision_config, config.world_image_size
    frames, side = 1 + config.num_world_steps, config.latent_side
    has_world = config.enable_world and length.images > 0
    features = torch.zeros(length.images, config.gemma_config.mm_tokens_per_image, vision.hidden_size).bfloat16()
    latents = torch.zeros(int(has_world), config.latent_channels, frames, side, side)
    live_images = 0 if cached.image_features else length.images
    live_frames = 0 if cached.world_latents or not has_world else 1
    return Sample(
        id="typical",
        input_ids=ids,
        labels=labels,
        token_type_ids=types,
        pixel_values=torch.zeros(live_images, 3, vision.image_size, vision.image_size),
        world_pixel_values=torch.zeros(live_frames, 3, world, world),
        image_features=features if cached.image_features else None,
        world_latents=latents if cached.world_latents else None,
    )


def _tokens(config: TheWorldConfig, length: SampleLength) -> tuple[Tensor, Tensor]:
    """`input_ids` and `token_type_ids`, int64[T] each; all text is one word."""
    gemma = config.gemma_config
    parts = [(_TEXT_ID, TokenType.TEXT, 1)]
    if config.enable_world and length.images:
        first, world, last = config.start_of_world_token_id, config.world_token_id, config.end_of_world_token_id
        block = [(first, TokenType.TEXT, 1), (world, TokenType.WORLD, config.num_world_tokens)]
        parts += [(number or 0, kind, count) for number, kind, count in [*block, (last, TokenType.TEXT, 1)]]
    parts += [(gemma.image_token_id, TokenType.IMAGE, length.images * gemma.mm_tokens_per_image)]
    parts += [(_TEXT_ID, TokenType.TEXT, length.tokens - sum(count for *_, count in parts))]
    ids = torch.cat([torch.full((count,), number) for number, _, count in parts])
    types = torch.cat([torch.full((count,), int(kind)) for _, kind, count in parts])
    return ids, types


_TEXT_ID = 3

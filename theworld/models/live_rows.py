"""Rows that can still reach a target: in the last layers most of a sequence cannot, and need not be computed.

After the last global layer every layer sees less than one window back. So behind the attention of the last layer only
the rows of targets matter, behind the one before it those less than a window before them, and so on up to the last
global layer. A row that is left out is one whose output no target can depend on: the loss and every gradient stay the
same.

This is planned on the CPU from where the targets are, with the batch, so that nothing waits for the device.

    T tokens of a row · R live rows of a level
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from transformers import Gemma3TextConfig

from theworld.models.attention.rule import changes, runs
from theworld.models.configuration import TheWorldConfig
from theworld.types import PADDING_DOCUMENT, Batch, Level, LiveRows, TokenType

NUM_SIZES = 16
"""Rows of a level come in sixteenths of the batch, so that compiled layers meet few different shapes."""


def trimmed_layers(config: Gemma3TextConfig) -> int:
    """How many of the last layers leave rows out behind their attention: the last global one and those after it."""
    kinds = list(config.layer_types)
    return kinds[::-1].index("full_attention") + 1 if "full_attention" in kinds else len(kinds)


def plan_live_rows(
    document_ids: Tensor,
    token_type_ids: Tensor,
    target_positions: Tensor,
    config: Gemma3TextConfig,
    *,
    image_tokens: int,
    round_to: int | None = None,
) -> LiveRows:
    """Which rows the last layers compute.

    Args:
        document_ids: int64[B, T], on the CPU.
        token_type_ids: int64[B, T], on the CPU.
        target_positions: int64[M], flat indices of the position before each target, on the CPU; at least one.
        config: Of the language model.
        image_tokens: Tokens of an image.
        round_to: Rows of a level are a multiple of this; default: see `NUM_SIZES`.
    """
    batch, length = document_ids.shape
    round_to = -(-batch * length // NUM_SIZES) if round_to is None else round_to
    boundaries = changes(document_ids)
    boundaries[:, 0] = True
    sample = boundaries.flatten().cumsum(0) - 1  # (B·T,) a number for every document of the batch
    types = token_type_ids.flatten()
    is_image = types == TokenType.IMAGE
    run = runs(sample[None], types[None])[0]
    index = torch.arange(batch * length)
    first, last = _reach_of_targets(sample, target_positions)

    levels: list[Level] = []
    before = index
    for after in range(trimmed_layers(config) - 1, 0, -1):  # layers behind this level
        reach = after * (config.sliding_window - 1)
        live = (index >= first[sample] - reach) & (index <= last[sample])
        live |= is_image & torch.isin(run, run[live & is_image])  # an image sees itself whole
        kept = index[live]
        padding = -len(kept) % round_to
        levels.append(
            Level(
                rows=_rounded(torch.searchsorted(before, kept), round_to),
                document_ids=torch.cat([sample[kept], torch.full((padding,), PADDING_DOCUMENT)])[None],
                token_type_ids=torch.cat([types[kept], torch.full((padding,), int(TokenType.TEXT))])[None],
                num_images=int(is_image[kept].sum()) // image_tokens,
            )
        )
        before = kept  # padding is at the end, so indices into the rows without it are those with it
    return LiveRows(levels=tuple(levels), target_rows=_rounded(torch.searchsorted(before, target_positions), round_to))


def with_live_rows(batch: Batch, config: TheWorldConfig) -> Batch:
    """A training batch, still on the CPU, with `live_rows` planned; as it is if it has no target."""
    if not batch.num_target_tokens:
        return batch
    live_rows = plan_live_rows(
        batch.document_ids,
        batch.token_type_ids,
        batch.target_positions,
        config.get_text_config(),
        image_tokens=config.gemma_config.mm_tokens_per_image,
    )
    return replace(batch, live_rows=live_rows)


def _reach_of_targets(sample: Tensor, target_positions: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last target position of each document; int64[documents] each, an empty range without any."""
    count = int(sample[-1]) + 1
    of_target = sample[target_positions]
    first = torch.full((count,), len(sample)).scatter_reduce(0, of_target, target_positions, "amin")
    last = torch.full((count,), -1).scatter_reduce(0, of_target, target_positions, "amax")
    return first, last


def _rounded(rows: Tensor, round_to: int) -> Tensor:
    """`rows` and the first of them again, up to a multiple of `round_to`."""
    return torch.cat([rows, rows[:1].expand(-len(rows) % round_to)])

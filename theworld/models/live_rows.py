"""Rows that can still reach a target: in the last layers most of a sequence cannot, and need not be computed.

After the last global layer every layer sees less than one window back. So of the last layer only the rows of targets
matter, of the one before it those less than a window before them, and so on. A row that is left out is one whose
output no target can depend on; the loss and every gradient stay the same.

This is planned on the CPU from where the targets are, with the batch, so that nothing waits for the device.

    T tokens of a row · R live rows of a level
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from transformers import Gemma3TextConfig

from theworld.models.attention.rule import changes, runs
from theworld.types import PADDING_DOCUMENT, TokenType

ROUND_TO = 512
"""Rows of a level come in multiples of this, so that compiled layers meet few different shapes."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """The rows that one of the last layers computes, in order, as one packed row.

    Attributes:
        rows: int64[R], indices into the rows of the level before (of the whole batch for the first).
        document_ids: int64[1, R], different for every sample of the batch; padding repeats a row.
        token_type_ids: int64[1, R].
        num_images: Images among the rows; each is there as a whole or not at all.
    """

    rows: Tensor
    document_ids: Tensor
    token_type_ids: Tensor
    num_images: int


@dataclass(frozen=True, kw_only=True)
class LiveRows:
    """Levels of the last layers, from the first trimmed one on, and the targets among the last one's rows.

    Attributes:
        levels: One for each layer after the last global one.
        target_positions: int64[M], indices into the last level's rows of the position before each target.
    """

    levels: tuple[Level, ...]
    target_positions: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> LiveRows:
        """The same with every tensor on `device`."""

        def moved(part: Any) -> Any:
            tensors = {f.name: getattr(part, f.name) for f in fields(part) if isinstance(getattr(part, f.name), Tensor)}
            return replace(part, **{k: v.to(device, non_blocking=non_blocking) for k, v in tensors.items()})

        return replace(moved(self), levels=tuple(moved(level) for level in self.levels))


def trailing_layers(config: Gemma3TextConfig) -> int:
    """Layers after the last global one."""
    kinds = list(config.layer_types)
    return kinds[::-1].index("full_attention") if "full_attention" in kinds else len(kinds)


def plan_live_rows(
    document_ids: Tensor,
    token_type_ids: Tensor,
    target_positions: Tensor,
    config: Gemma3TextConfig,
    *,
    image_tokens: int,
    round_to: int = ROUND_TO,
) -> LiveRows:
    """Which rows the last layers compute.

    Args:
        document_ids: int64[B, T], on the CPU.
        token_type_ids: int64[B, T], on the CPU.
        target_positions: int64[M], flat indices of the position before each target, on the CPU; at least one.
        config: Of the language model.
        image_tokens: Tokens of an image.
        round_to: See `ROUND_TO`.
    """
    batch, length = document_ids.shape
    boundaries = changes(document_ids)
    boundaries[:, 0] = True
    sample = boundaries.flatten().cumsum(0) - 1  # (B·T,) a number for every document of the batch
    is_image = token_type_ids.flatten() == TokenType.IMAGE
    run = runs(sample[None], token_type_ids.reshape(1, -1))[0]
    index = torch.arange(batch * length)

    count = int(sample[-1]) + 1
    first_target = torch.full((count,), batch * length).scatter_reduce(
        0, sample[target_positions], target_positions, "amin"
    )
    last_target = torch.full((count,), -1).scatter_reduce(0, sample[target_positions], target_positions, "amax")

    levels: list[Level] = []
    before = index
    depth = trailing_layers(config)
    for layer in range(depth):
        reach = (depth - layer) * (config.sliding_window - 1)
        live = (index >= first_target[sample] - reach) & (index <= last_target[sample])
        live |= is_image & torch.isin(run, run[live & is_image])  # an image sees itself whole
        kept = index[live]
        padding = -len(kept) % round_to
        padded = torch.cat([kept, kept[:1].expand(padding)])
        documents = torch.cat([sample[kept], torch.full((padding,), PADDING_DOCUMENT)])
        types = torch.cat([token_type_ids.flatten()[kept], torch.full((padding,), int(TokenType.TEXT))])
        levels.append(
            Level(
                rows=torch.searchsorted(before, padded),
                document_ids=documents[None],
                token_type_ids=types[None],
                num_images=int(is_image[kept].sum()) // image_tokens,
            )
        )
        before = kept
    return LiveRows(levels=tuple(levels), target_positions=torch.searchsorted(before, target_positions))

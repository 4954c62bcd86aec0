"""Samples to a `Batch`: one packed row of constant length, or a padded batch for generation and parity tests.

Shape legend: `B` rows · `T` tokens of a row · `M` targets · `I` images · `W` world frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from theworld.types import FEATURES, IGNORE_INDEX, PADDING_DOCUMENT, Batch, FailedSample, Sample, TokenType


def pack(
    samples: Sequence[Sample],
    *,
    budget: int,
    pad_token_id: int,
    step_target_tokens: float,
    loss_weights: Sequence[float] | None = None,
    failed: Sequence[FailedSample] = (),
    world_token_counts: Sequence[int] = (),
) -> Batch:
    """One row of exactly `budget` tokens: samples one after another, padding at the end.

    Args:
        samples: At least one; they see nothing of one another.
        budget: Tokens of the row.
        pad_token_id: What the tail is filled with.
        step_target_tokens: Target tokens of the whole optimizer step, from the plan, counted with their weights.
        loss_weights: What a target token of each sample counts; None when all count 1.
        failed: What to note of samples that were replaced.
        world_token_counts: World placeholders of each sample that has any, if they drew different numbers.

    Raises:
        ValueError: The samples exceed the budget, a sample's first token is a target, or some samples hold pixels and
            others features of the same tower.
    """
    lengths = [len(sample.input_ids) for sample in samples]
    total = sum(lengths)
    if total > budget or not samples:
        raise ValueError(
            f"found {total} tokens in {len(lengths)} samples {[sample.id for sample in samples]}, "
            f"expected 1 to {budget} tokens; plan with the lengths of these samples."
        )
    tail = budget - total
    text = int(TokenType.TEXT)
    documents = [torch.full((length,), number) for number, length in enumerate(lengths)]
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    return Batch(
        input_ids=torch.cat([*(s.input_ids for s in samples), torch.full((tail,), pad_token_id)])[None],  # (1, T)
        labels=torch.cat([*(s.labels for s in samples), torch.full((tail,), IGNORE_INDEX)])[None],
        token_type_ids=torch.cat([*(s.token_type_ids for s in samples), torch.full((tail,), text)])[None],
        position_ids=torch.cat([torch.arange(length) for length in (*lengths, tail)])[None],
        document_ids=torch.cat([*documents, torch.full((tail,), PADDING_DOCUMENT)])[None],
        target_positions=_target_positions(samples, starts),
        step_target_tokens=step_target_tokens,
        target_weights=None if loss_weights is None else _target_weights(samples, loss_weights),
        **_seen(samples),
        ids=tuple(sample.id for sample in samples),
        failed=tuple(failed),
        document_lengths=tuple(lengths),
        world_token_counts=tuple(world_token_counts),
    )


def pad(samples: Sequence[Sample], *, pad_token_id: int, side: Literal["left", "right"]) -> Batch:
    """One row a sample, filled up to the longest; positions start at 0 at the first real token.

    Args:
        samples: At least one.
        pad_token_id: What rows are filled with.
        side: Where the filling goes: `left` for generation, `right` otherwise.

    Raises:
        ValueError: No samples, an unknown side, a sample's first token is a target, or a mixture as in `pack`.
    """
    if side not in ("left", "right") or not samples:
        raise ValueError(
            f"found {len(samples)} samples and side {side!r}, expected at least one and 'left' or 'right'."
        )
    lengths = [len(sample.input_ids) for sample in samples]
    longest = max(lengths)
    gaps = [longest - length for length in lengths]

    def stack(rows: Sequence[Tensor], fill: int) -> Tensor:
        filled = []
        for row, gap in zip(rows, gaps, strict=True):
            filling = torch.full((gap,), fill)
            filled.append(torch.cat([filling, row] if side == "left" else [row, filling]))
        return torch.stack(filled)  # (B, T)

    starts = [number * longest + (gap if side == "left" else 0) for number, gap in enumerate(gaps)]
    target_positions = _target_positions(samples, starts)
    return Batch(
        input_ids=stack([s.input_ids for s in samples], pad_token_id),
        labels=stack([s.labels for s in samples], IGNORE_INDEX),
        token_type_ids=stack([s.token_type_ids for s in samples], int(TokenType.TEXT)),
        position_ids=stack([torch.arange(length) for length in lengths], 0),
        document_ids=stack([torch.zeros(length, dtype=torch.int64) for length in lengths], PADDING_DOCUMENT),
        target_positions=target_positions,
        step_target_tokens=len(target_positions),
        **_seen(samples),
        ids=tuple(sample.id for sample in samples),
        document_lengths=tuple(lengths),
    )


def _seen(samples: Sequence[Sample]) -> dict[str, Any]:
    """Pixels of all samples, and where a tower's features take their place, these; None where they do not."""
    seen: dict[str, Any] = {}
    for feature, pixels in FEATURES.items():
        given = [getattr(sample, feature) for sample in samples]
        live = [sample.id for sample, tensor in zip(samples, given, strict=True) if tensor is None]
        if live and len(live) < len(given):
            raise ValueError(
                f"found {feature} in some samples of a row but not in {live[:3]}, expected all of them or none; cache "
                "the features of every source (`theworld data cache`), or of none."
            )
        seen[feature] = None if live else torch.cat(given)
        seen[pixels] = torch.cat([getattr(sample, pixels) for sample in samples])
    return seen


def _target_weights(samples: Sequence[Sample], loss_weights: Sequence[float]) -> Tensor:
    """float32[M]: the weight of each target, in the order of `_target_positions`."""
    counts = [int((sample.labels != IGNORE_INDEX).sum()) for sample in samples]
    return torch.cat([torch.full((n,), weight) for n, weight in zip(counts, loss_weights, strict=True)])  # (M,)


def _target_positions(samples: Sequence[Sample], starts: Sequence[int]) -> Tensor:
    """int64[M]: flat index of the position before each target, never in another document."""
    positions = []
    for sample, start in zip(samples, starts, strict=True):
        targets = torch.nonzero(sample.labels != IGNORE_INDEX).flatten()  # (M of the sample,)
        if len(targets) and targets[0] == 0:
            raise ValueError(f"{sample.id}: its first token is a target, which nothing in the sample can predict.")
        positions.append(targets - 1 + start)
    return torch.cat(positions)  # (M,)

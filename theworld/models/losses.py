"""Cross-entropy over the target tokens only: the rows that predict nothing never reach the vocabulary.

B rows of a batch · T tokens of a row · M targets · D hidden size · V vocabulary size
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from theworld.types import IGNORE_INDEX


def target_cross_entropy(
    hidden: Tensor,
    lm_head_weight: Tensor,
    labels: Tensor,
    target_positions: Tensor,
    target_weights: Tensor | None = None,
    *,
    scored_positions: Tensor | None = None,
) -> Tensor:
    """Sum (not mean) of the cross-entropy over the targets; 0 when there is none.

    Args:
        hidden: float[B, T, D], output of the last norm.
        lm_head_weight: float[V, D].
        labels: int64[B, T], aligned with the input (not shifted).
        target_positions: int64[M], flat indices into B·T of the position before each target.
        target_weights: float32[M], what each target counts; None when all count 1.
        scored_positions: int64[M], flat indices into `hidden` of those positions, where `hidden` has other rows than
            `labels`; default `target_positions`.

    Returns:
        float32 scalar (float64 for float64 input).
    """
    scored = hidden.flatten(0, 1)[target_positions if scored_positions is None else scored_positions]  # (M, D)
    targets = labels.flatten()[target_positions + 1]  # (M,)
    logits = F.linear(scored, lm_head_weight)  # (M, V)
    if logits.dtype != torch.float64:
        logits = logits.float()
    if target_weights is None:
        return F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="sum")
    losses = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="none")  # (M,)
    return (losses * target_weights).sum()


def find_target_positions(labels: Tensor) -> Tensor:
    """`target_positions` of labels that come without them (the collator makes them on the CPU for training).

    On CUDA this waits for the device, because the number of targets is a value.
    """
    targets = labels != IGNORE_INDEX
    if bool(targets[:, 0].any()):
        rows = torch.nonzero(targets[:, 0]).flatten().tolist()
        raise ValueError(
            f"found a target at the first token of rows {rows}, expected none: no position predicts it; "
            f"set that label to {IGNORE_INDEX}"
        )
    return torch.nonzero(targets.flatten()).flatten() - 1

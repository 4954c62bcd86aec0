"""Cross-entropy over the target tokens only: the rows that predict nothing never reach the vocabulary.

Logits are the largest tensor of a step: 1,000 targets of Gemma's 262,208 tokens are 0.5 GB in bfloat16 and 1 GB in
float32. So float32 logits live for one chunk of targets at a time, and only until their gradient is made: that is done
in the forward pass, where they are at hand. No product is computed twice. A chunk is as large as memory allows, because
each one reads the whole vocabulary matrix.

What is kept for the backward pass: the gradient of the hidden states; and of a vocabulary matrix that trains its own
gradient, or where targets are no more than it has columns that of the logits, which is smaller, and of which the
backward pass makes the other.

B rows of a batch · T tokens of a row · M targets · C targets of a chunk · D hidden size · V vocabulary size
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from theworld.models.autocast import product_dtype
from theworld.types import IGNORE_INDEX

CHUNK_ROWS = 1024
"""Targets whose float32 logits are in memory together: 1.6 GB at Gemma's vocabulary, with those in bfloat16."""


def target_cross_entropy(
    hidden: Tensor,
    lm_head_weight: Tensor,
    labels: Tensor,
    target_positions: Tensor,
    target_weights: Tensor | None = None,
    *,
    scored_positions: Tensor | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Tensor:
    """Sum (not mean) of the cross-entropy over the targets; 0 when there is none.

    Differentiable once, with respect to `hidden` and `lm_head_weight`.

    Args:
        hidden: float[B, T, D], output of the last norm.
        lm_head_weight: float[V, D].
        labels: int64[B, T], aligned with the input (not shifted).
        target_positions: int64[M], flat indices into B·T of the position before each target.
        target_weights: float32[M], what each target counts; None when all count 1.
        scored_positions: int64[M], flat indices into `hidden` of those positions, where `hidden` has other rows than
            `labels`; default `target_positions`.
        chunk_rows: Targets whose logits are in memory together.

    Returns:
        float32 scalar (float64 for float64 input).
    """
    if chunk_rows < 1:
        raise ValueError(f"found chunk_rows={chunk_rows}, expected at least 1 target a chunk")
    scored = hidden.flatten(0, 1)[target_positions if scored_positions is None else scored_positions]  # (M, D)
    targets = labels.flatten()[target_positions + 1]  # (M,)
    counts = (targets != IGNORE_INDEX).to(torch.float64 if scored.dtype == torch.float64 else torch.float32)  # (M,)
    if target_weights is not None:
        counts.mul_(target_weights)
    return _ChunkedCrossEntropy.apply(scored, lm_head_weight, targets.clamp(min=0), counts, chunk_rows)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Σ counts · cross-entropy of `F.linear(scored, weight)`, whose softmax is computed in the forward pass only.

    With L = Σ cᵢ (logsumexp(zᵢ) − zᵢ[tᵢ]) and z = x Wᵀ: G = softmax(z) − onehot(t), ∂L/∂x = c · (G W) and
    ∂L/∂W = Gᵀ (c · x). Between the passes ∂L/∂x and the smaller one of G and ∂L/∂W are kept, as far as asked for.
    """

    @staticmethod
    def forward(ctx: Any, scored: Tensor, weight: Tensor, targets: Tensor, counts: Tensor, chunk_rows: int) -> Tensor:
        """Loss of float[M, D] rows against float[V, D], int64[M] targets that count float[M]; a scalar."""
        needs_scored, needs_weight = ctx.needs_input_grad[:2]
        dtype = product_dtype(scored)
        rows, matrix = scored.to(dtype), weight.to(dtype)
        kept = rows.new_empty(len(rows), len(matrix)) if needs_weight and len(rows) <= matrix.shape[1] else None
        loss = counts.new_zeros(())
        scored_gradients: list[Tensor] = []
        weight_gradient: Tensor | None = None
        for first in range(0, max(1, len(rows)), chunk_rows):  # without a target one chunk of nothing
            chunk = slice(first, first + chunk_rows)
            x, t, c = rows[chunk], targets[chunk], counts[chunk]
            logits = F.linear(x, matrix) if kept is None else torch.mm(x, matrix.T, out=kept[chunk])  # (C, V)
            gradient = F.log_softmax(logits, dim=-1, dtype=counts.dtype)  # (C, V), so far log p
            loss = loss - (gradient.gather(1, t[:, None])[:, 0] * c).sum()
            if not (needs_scored or needs_weight):
                continue
            gradient.exp_().scatter_add_(1, t[:, None], gradient.new_full((len(t), 1), -1.0))
            logits.copy_(gradient)  # in the type of the products; the logits themselves are needed no more
            del gradient
            if needs_scored:
                scored_gradients.append(((logits @ matrix) * c[:, None]).to(scored.dtype))  # (C, D)
            if needs_weight and kept is None:
                # Chunks are added up in float32 (or wider): a sum in bfloat16 would lose the smaller ones.
                product = (logits.T @ (x * c[:, None]).to(dtype)).to(torch.promote_types(weight.dtype, torch.float32))
                weight_gradient = product if weight_gradient is None else weight_gradient.add_(product)  # (V, D)
            del logits  # before the next chunk's are made
        ctx.weight_dtype = weight.dtype
        ctx.save_for_backward(
            torch.cat(scored_gradients) if needs_scored else None,
            None if weight_gradient is None else weight_gradient.to(weight.dtype),
            *((None, None, None) if kept is None else (kept, rows, counts)),
        )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """What is kept times the gradient of the loss."""
        scored, weight, kept, rows, counts = ctx.saved_tensors
        of_scored = None if scored is None else scored * loss_gradient
        if kept is None:
            return of_scored, None if weight is None else weight * loss_gradient, None, None, None
        # A pass over the matrix less than scaling the product; float16 would overflow by a loss that is scaled up.
        early = kept.dtype != torch.float16
        factors = counts * loss_gradient if early else counts
        of_weight = (kept.T @ (rows * factors[:, None]).to(kept.dtype)).to(ctx.weight_dtype)
        return of_scored, of_weight if early else of_weight * loss_gradient, None, None, None


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

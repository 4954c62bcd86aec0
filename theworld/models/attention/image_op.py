"""SigLIP's attention where it trains: every patch sees every patch of its image, by FlashAttention-4.

Its head size of 72 is padded to 96 by PyTorch's own FlashAttention-2 and to 80 here. I images · P patches · H heads ·
d head size · L = I·P
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from theworld.models.attention.sequences import Sequences, Triple
from theworld.models.attention.varlen import varlen, varlen_backward


@torch.library.custom_op("theworld::image_attention", mutates_args=())
def image_attention(
    query: Tensor, key: Tensor, value: Tensor, patches: int, scale: float, kernel: str
) -> tuple[Tensor, Tensor]:
    """float[L, H, d] ×3 → float[L, H, d], and the log-sum-exp float32[H, L] that the backward pass needs."""
    return varlen(query, key, value, _images(query, patches, scale, kernel))


@torch.library.custom_op("theworld::image_attention_backward", mutates_args=())
def image_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attended: Tensor,
    lse: Tensor,
    patches: int,
    scale: float,
    kernel: str,
) -> Triple:
    """Gradients of query, key and value; `grad` is that of `attended`."""
    return varlen_backward(grad, query, key, value, attended, lse, _images(query, patches, scale, kernel))


def _images(query: Tensor, patches: int, scale: float, kernel: str) -> Sequences:
    ends = torch.arange(0, len(query) + 1, patches, dtype=torch.int32, device=query.device)
    return Sequences(
        query_ends=ends,
        key_ends=ends,
        max_queries=patches,
        max_keys=patches,
        window=(-1, -1),
        scale=scale,
        kernel=kernel,
    )


@image_attention.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)


@image_attention_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Triple:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, patches, scale, kernel = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.options = patches, scale, kernel


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return *image_attention_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.options), None, None, None


image_attention.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.theworld.image_attention)
def _forward_flops(query_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Two products of L·P·H·d multiplications."""
    total, heads, size = query_shape
    patches = args[-3]
    return int(4 * total * patches * heads * size)


@register_flop_formula(torch.ops.theworld.image_attention_backward)
def _backward_flops(grad_shape: Any, query_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Flash recomputes the scores: two and a half times the forward pass."""
    return int(2.5 * _forward_flops(query_shape, *args))

"""One custom operator for both flash calls, so that compile, selective recompute and FLOP counts see one product.

L tokens of a batch · H query heads · G key heads · d head size · the other letters as in `flash`
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from theworld.models.attention.sequences import Sequences, Triple
from theworld.models.attention.varlen import varlen, varlen_backward


@torch.library.custom_op("theworld::document_attention", mutates_args=())
def document_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    document_ends: Tensor,
    image_rows: Tensor,
    image_keys: Tensor,
    image_ends: Tensor,
    key_ends: Tensor,
    image_round: Tensor,
    length: int,
    window: int,
    scale: float,
    kernel: str,
) -> Triple:
    """Attention under the rule.

    Args:
        query: float[L, H, d].
        key: float[L, G, d].
        value: float[L, G, d].
        document_ends: This and the next seven are fields of `FlashLayout`.
        image_rows: See there.
        image_keys: See there.
        image_ends: See there.
        key_ends: See there.
        image_round: See there.
        length: See there.
        window: See there.
        scale: Of the scores.
        kernel: A field of `FlashLayout`, too.

    Returns:
        float[L, H, d]; log-sum-exp float32[H, L] of the causal step and float32[R, H, I·N] of the image step, which the
        backward pass needs.
    """
    attended, lse = varlen(query, key, value, _causal(document_ends, length, window, scale, kernel))
    if not len(image_rows):
        return attended, lse, lse.new_empty(len(key_ends), lse.shape[0], 0)
    rows = query[image_rows]
    seen_key, seen_value = _seen(key, value, image_keys)
    rounds = [_image(image_ends, ends, image_rows, image_keys, length, window, scale, kernel) for ends in key_ends]
    parts = [varlen(rows, seen_key, seen_value, sequences) for sequences in rounds]
    seen = parts[0][0]
    for number, (part, _) in enumerate(parts[1:], start=1):
        seen = torch.where((image_round == number)[:, None, None], part, seen)
    attended.index_copy_(0, image_rows, seen)  # in place: the tensor is this call's own
    return attended, lse, torch.stack([part for _, part in parts])


@torch.library.custom_op("theworld::document_attention_backward", mutates_args=())
def document_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attended: Tensor,
    lse: Tensor,
    image_lse: Tensor,
    document_ends: Tensor,
    image_rows: Tensor,
    image_keys: Tensor,
    image_ends: Tensor,
    key_ends: Tensor,
    image_round: Tensor,
    length: int,
    window: int,
    scale: float,
    kernel: str,
) -> Triple:
    """Gradients of query, key and value; `grad` is that of `attended`, the rest as in `document_attention`."""
    causal = _causal(document_ends, length, window, scale, kernel)
    # What the causal step had for these rows was overwritten: exp(score - inf) = 0 takes them out of its gradients.
    causal_lse = lse.index_fill(1, image_rows, float("inf"))
    of_query, of_key, of_value = varlen_backward(grad, query, key, value, attended, causal_lse, causal)
    if not len(image_rows):
        return of_query, of_key, of_value
    rows, rows_attended, rows_grad = query[image_rows], attended[image_rows], grad[image_rows]
    seen_key, seen_value = _seen(key, value, image_keys)
    for number, ends in enumerate(key_ends):
        mine = rows_grad if len(key_ends) == 1 else rows_grad * (image_round == number)[:, None, None]
        sequences = _image(image_ends, ends, image_rows, image_keys, length, window, scale, kernel)
        more = varlen_backward(mine, rows, seen_key, seen_value, rows_attended, image_lse[number], sequences)
        if number == 0:
            of_query.index_copy_(0, image_rows, more[0])  # where the causal step left zeros
        else:
            of_query.index_add_(0, image_rows, more[0])
        for whole, part in ((of_key, more[1]), (of_value, more[2])):
            if len(image_keys):
                whole.index_add_(0, image_keys, part)
            else:
                whole.add_(part)
    return of_query, of_key, of_value


def _seen(key: Tensor, value: Tensor, image_keys: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of the image step: blocks of their own, or all."""
    return (key[image_keys], value[image_keys]) if len(image_keys) else (key, value)


def _causal(document_ends: Tensor, length: int, window: int, scale: float, kernel: str) -> Sequences:
    return Sequences(
        query_ends=document_ends,
        key_ends=document_ends,
        max_queries=length,
        max_keys=length,
        window=(window - 1 if window > 0 else -1, 0),
        scale=scale,
        kernel=kernel,
    )


def _image(
    image_ends: Tensor,
    key_ends: Tensor,
    image_rows: Tensor,
    image_keys: Tensor,
    length: int,
    window: int,
    scale: float,
    kernel: str,
) -> Sequences:
    num_images = len(image_ends) // 2 - 1
    return Sequences(
        query_ends=image_ends,
        key_ends=key_ends,
        max_queries=len(image_rows) // num_images,
        max_keys=len(image_keys) // num_images if len(image_keys) else length,
        window=(window - 1 if window > 0 else -1, -1),
        scale=scale,
        kernel=kernel,
    )


@document_attention.register_fake
def _(query: Tensor, *inputs: Any) -> Triple:
    image_rows, key_ends = inputs[3], inputs[6]
    lse = query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)
    image_lse = query.new_empty((key_ends.shape[0], query.shape[1], image_rows.shape[0]), dtype=torch.float32)
    return query.new_empty(query.shape), lse, image_lse


@document_attention_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Triple:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Triple) -> None:
    *tensors, length, window, scale, kernel = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.sizes = length, window, scale, kernel


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, *layout, attended, lse, image_lse = ctx.saved_tensors
    inputs = (grad.contiguous(), query, key, value, attended, lse, image_lse, *layout, *ctx.sizes)
    return *document_attention_backward(*inputs), *[None] * 10


document_attention.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.theworld.document_attention)
def _forward_flops(query_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Products of the causal step, as if every document were as long as a row: an upper bound, as shapes alone tell."""
    total, heads, size = query_shape
    length, window = args[-4], args[-3]
    seen = length / 2 if window <= 0 else min(window, length / 2)
    return int(4 * total * seen * heads * size)


@register_flop_formula(torch.ops.theworld.document_attention_backward)
def _backward_flops(grad_shape: Any, query_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Flash recomputes the scores: two and a half times the forward pass."""
    return int(2.5 * _forward_flops(query_shape, *args))

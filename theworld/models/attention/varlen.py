"""Variable-length attention: flash kernels on a GPU; on a CPU the same by plain matrix products, for tests.

Q queries · L keys · H query heads · G key heads · d head size
"""

from __future__ import annotations

import torch
from torch import Tensor

from theworld.models.attention import flash4
from theworld.models.attention.first_calls import FirstCalls
from theworld.models.attention.sequences import Sequences, Triple

_FORWARD, _BACKWARD = FirstCalls("FlashAttention-4's forward pass"), FirstCalls("FlashAttention-4's backward pass")


def varlen(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor]:
    """float[Q, H, d], float[L, G, d] ×2 → float[Q, H, d] and the log-sum-exp float32[H, Q]."""
    if not query.is_cuda:
        return _plain(query, key, value, sequences)
    if sequences.kernel != "flash4":
        return _flash(query, key, value, sequences)
    found = flash4.forward(query, key, value, sequences)
    _FORWARD.check(found, lambda: _flash(query, key, value, sequences))
    return found


def varlen_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor, sequences: Sequences
) -> Triple:
    """Gradients of query, key and value; `output` and `lse` are those of `varlen`; where `lse` is ∞ there are none."""
    if not query.is_cuda:
        return _plain_backward(grad, query, key, value, lse, sequences)
    inputs = (grad, query, key, value, output, lse, sequences)
    if sequences.kernel != "flash4":
        return _flash_backward(*inputs)
    found = flash4.backward(*inputs)
    _BACKWARD.check(found, lambda: _flash_backward(*inputs))
    return found


def _flash(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor]:
    output, lse, *_ = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        sequences.query_ends,
        sequences.key_ends,
        sequences.max_queries,
        sequences.max_keys,
        0.0,
        sequences.window == (-1, 0),
        False,
        scale=sequences.scale,
        window_size_left=sequences.window[0],
        window_size_right=sequences.window[1],
    )
    return output, lse


def _flash_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor, sequences: Sequences
) -> Triple:
    no_dropout = torch.empty(2, dtype=torch.uint64, device=query.device)
    return torch.ops.aten._flash_attention_backward(
        grad,
        query,
        key,
        value,
        output,
        lse,
        sequences.query_ends,
        sequences.key_ends,
        sequences.max_queries,
        sequences.max_keys,
        0.0,
        sequences.window == (-1, 0),
        no_dropout,
        no_dropout,
        scale=sequences.scale,
        window_size_left=sequences.window[0],
        window_size_right=sequences.window[1],
    )


def _plain(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor]:
    output = torch.zeros_like(query)
    lse = query.new_full((query.shape[1], query.shape[0]), float("-inf"), dtype=torch.float32)
    for queries, keys in _each(sequences):
        scores = _scores(query[queries], key[keys], sequences)  # (H, Q_i, L_i)
        output[queries] = torch.einsum("hqk,khd->qhd", _weights(scores), _spread(value[keys], query))
        lse[:, queries] = scores.logsumexp(dim=-1).float()
    return output, lse


def _plain_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, lse: Tensor, sequences: Sequences
) -> Triple:
    """By hand: autograd does not record inside a custom operator."""
    of_query, of_key, of_value = (torch.zeros_like(states) for states in (query, key, value))
    group = query.shape[1] // key.shape[1]
    for queries, keys in _each(sequences):
        weights = _weights(_scores(query[queries], key[keys], sequences)) * lse[:, queries, None].isfinite()
        of_weights = torch.einsum("qhd,khd->hqk", grad[queries], _spread(value[keys], query))
        of_scores = weights * (of_weights - (of_weights * weights).sum(dim=-1, keepdim=True)) * sequences.scale
        of_query[queries] = torch.einsum("hqk,khd->qhd", of_scores, _spread(key[keys], query))
        for target, per_head in (
            (of_key, torch.einsum("hqk,qhd->khd", of_scores, query[queries])),
            (of_value, torch.einsum("hqk,qhd->khd", weights, grad[queries])),
        ):
            target[keys] = per_head.unflatten(1, (-1, group)).sum(dim=2)
    return of_query, of_key, of_value


def _scores(query: Tensor, key: Tensor, sequences: Sequences) -> Tensor:
    scores = torch.einsum("qhd,khd->hqk", query, _spread(key, query)) * sequences.scale
    count, seen = scores.shape[1:]
    step = torch.arange(seen)[None] - torch.arange(count)[:, None] - (seen - count)  # how far ahead a key lies
    back, ahead = sequences.window
    hidden = torch.zeros(count, seen, dtype=torch.bool)
    if back >= 0:
        hidden |= step < -back
    if ahead >= 0:
        hidden |= step > ahead
    return scores.masked_fill(hidden, float("-inf"))


def _weights(scores: Tensor) -> Tensor:
    return torch.nan_to_num(scores.softmax(dim=-1))  # a query without keys sees nothing


def _spread(states: Tensor, query: Tensor) -> Tensor:
    """Key heads repeated for the query heads that share them."""
    return states.repeat_interleave(query.shape[1] // states.shape[1], dim=1)


def _each(sequences: Sequences) -> list[tuple[slice, slice]]:
    return list(zip(_slices(sequences.query_ends), _slices(sequences.key_ends), strict=True))


def _slices(ends: Tensor) -> list[slice]:
    values = ends.tolist()
    return [slice(first, stop) for first, stop in zip(values[:-1], values[1:], strict=True)]

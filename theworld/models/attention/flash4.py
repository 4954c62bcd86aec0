"""FlashAttention-4 of the package flash-attn-4 (extra `flash4`): variable-length calls for Hopper and newer GPUs.

Half of FlashAttention-2's time on our layers (head size 256, grouped heads, window; experiments/speed). The package is
a pre-release without a public backward function, so the functions under its autograd are called; they are checked
against float32 in `tests/models/test_attention_cuda.py`, at the start of every run by `first_calls`, and the version is
bounded in `pyproject.toml`.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from theworld.models.attention.sequences import Sequences, Triple


@cache
def check_installed() -> None:
    """Refuse to begin without the package."""
    if importlib.util.find_spec("flash_attn") is None or importlib.util.find_spec("flash_attn.cute") is None:
        raise ValueError(
            "found attention backend 'flash4' without the package flash-attn-4, expected it: pip install "
            "'theworld[flash4]', or use 'flash'"
        )


def forward(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor]:
    """As `varlen`: bfloat16[Q, H, d], bfloat16[L, G, d] ×2 → bfloat16[Q, H, d] and float32[H, Q]."""
    output, lse, *_ = _interface()._flash_attn_fwd(
        query, key, value, max_seqlen_k=sequences.max_keys, return_lse=True, **_options(sequences)
    )
    return output, lse


def backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor, sequences: Sequences
) -> Triple:
    """As `varlen_backward`."""
    of_query, of_key, of_value = _interface()._flash_attn_bwd(
        query,
        key,
        value,
        output,
        grad,
        lse,
        max_seqlen_k=sequences.max_keys,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        **_options(sequences),
    )
    return of_query, of_key, of_value


def _options(sequences: Sequences) -> dict[str, object]:
    left, right = (None if limit < 0 else limit for limit in sequences.window)
    return {
        "softmax_scale": sequences.scale,
        "causal": (left, right) == (None, 0),
        "window_size_left": left,
        "window_size_right": right,
        "cu_seqlens_q": sequences.query_ends,
        "cu_seqlens_k": sequences.key_ends,
        "max_seqlen_q": sequences.max_queries,
    }


@cache
def _interface() -> ModuleType:
    check_installed()
    return importlib.import_module("flash_attn.cute.interface")  # seconds, and only on a GPU

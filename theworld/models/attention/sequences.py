"""Which queries meet which keys in one call of a variable-length kernel.

Sequence `i` has the queries `query_ends[i] .. query_ends[i + 1]` and the keys `key_ends[i] .. key_ends[i + 1]`; its
last query stands at its last key. A query at key position `p` sees keys in `[p - window[0], p + window[1]]`, where -1
means no limit; causal attention is `window[1] = 0`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Kernel = Literal["flash", "flash4"]
"""`flash`: PyTorch's own FlashAttention-2. `flash4`: FlashAttention-4 of the package flash-attn-4, faster on Hopper."""

Triple = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Where sequences begin and end, and what their queries see.

    Attributes:
        query_ends: int32[S + 1], cumulative.
        key_ends: int32[S + 1], cumulative.
        max_queries: Upper bound of the queries of a sequence.
        max_keys: Upper bound of the keys of a sequence.
        window: See the module.
        scale: Of the scores.
        kernel: Whose kernels compute it on a GPU, one of `Kernel`.
    """

    query_ends: Tensor
    key_ends: Tensor
    max_queries: int
    max_keys: int
    window: tuple[int, int]
    scale: float
    kernel: str

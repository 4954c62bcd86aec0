"""The reference backend: the rule as a boolean tensor, for torch's scaled dot-product attention on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from theworld.models.attention.rule import mask_mod


def sdpa_mask(
    document_ids: Tensor, token_type_ids: Tensor, *, sliding_window: int | None, bidirectional_world: bool
) -> Tensor:
    """The rule as `bool[B, 1, T, T]`; arguments as in `mask_mod`."""
    batch, length = document_ids.shape
    index = torch.arange(length, device=document_ids.device)
    b = torch.arange(batch, device=document_ids.device)[:, None, None, None]
    allowed = mask_mod(
        document_ids, token_type_ids, sliding_window=sliding_window, bidirectional_world=bidirectional_world
    )
    return allowed(b, torch.zeros_like(b), index[None, None, :, None], index[None, None, None, :])  # (B, 1, T, T)

"""The rule as a flex-attention block mask: nothing of size T², any variant of the rule, compiled on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from theworld.models.attention.rule import mask_mod

_compiled_block_mask = torch.compile(create_block_mask, dynamic=False)
_compiled_attention = torch.compile(flex_attention, dynamic=False)


def flex_mask(
    document_ids: Tensor, token_type_ids: Tensor, *, sliding_window: int | None, bidirectional_world: bool
) -> BlockMask:
    """The rule as a `BlockMask`; arguments as in `mask_mod`."""
    allowed = mask_mod(
        document_ids, token_type_ids, sliding_window=sliding_window, bidirectional_world=bidirectional_world
    )
    batch, length = document_ids.shape
    make = _compiled_block_mask if document_ids.is_cuda else create_block_mask
    return make(allowed, batch, None, length, length, device=document_ids.device)


def flex_kernel(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, *, scale: float) -> Tensor:
    """float[B, H, T, d] → float[B, H, T, d]. Inside a compiled layer it is compiled with it, else on its own."""
    fused = query.is_cuda and not torch.compiler.is_compiling()
    attend = _compiled_attention if fused else flex_attention
    return attend(query, key, value, block_mask=mask, scale=scale, enable_gqa=True)

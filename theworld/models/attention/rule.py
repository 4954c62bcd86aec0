"""The one attention rule. Every backend's mask is this rule, materialised in the form that backend reads.

A query sees a key of its own document that
    - is not after it, or lies in the same image (Gemma 3's rule); on sliding layers it must also be less than
      one window before the query, with no limit ahead, exactly as transformers has it;
    - or, with `bidirectional_world`, lies in the same run of world tokens; on sliding layers less than one
      window away in either direction.
Padding is a document of its own, causal like text, so that no row of the mask is empty.

    B rows of a batch · T tokens of a row
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from theworld.types import PADDING_DOCUMENT, TokenType

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def mask_mod(
    document_ids: Tensor,
    token_type_ids: Tensor,
    *,
    sliding_window: int | None = None,
    bidirectional_world: bool = False,
) -> MaskMod:
    """The rule as `allowed(b, h, q, k)` on index tensors, the signature of flex attention's `mask_mod`.

    Args:
        document_ids: int64[B, T].
        token_type_ids: int64[B, T], values of `TokenType`.
        sliding_window: Window in tokens of a sliding layer, `None` for a global layer.
        bidirectional_world: Let the world tokens of one sample see each other in both directions.
    """
    blocks = runs(document_ids, token_type_ids)  # (B, T)
    image, world = int(TokenType.IMAGE), int(TokenType.WORLD)  # torch.compile takes `tensor == enum` to be False

    def allowed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        same_block = blocks[b, q] == blocks[b, k]
        visible = (k <= q) | (same_block & (token_type_ids[b, q] == image))
        if sliding_window is not None:
            visible = visible & (k > q - sliding_window)
        if bidirectional_world:
            same_world = same_block & (token_type_ids[b, q] == world)
            if sliding_window is not None:
                same_world = same_world & ((q - k).abs() < sliding_window)
            visible = visible | same_world
        return visible & (document_ids[b, q] == document_ids[b, k])

    return allowed


def documents(input_ids: Tensor, document_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
    """`document_ids` as given, or of a padded batch: one document a row where the 2-D mask is not 0; int64[B, T]."""
    if document_ids is not None and attention_mask is not None:
        raise ValueError("found document_ids and attention_mask, expected one of them: both say where the padding is")
    if document_ids is not None:
        return document_ids
    if attention_mask is not None:
        return torch.where(attention_mask.bool(), 0, PADDING_DOCUMENT)
    return torch.zeros_like(input_ids)


def restarting_positions(document_ids: Tensor) -> Tensor:
    """int64[B, T] that count from 0 at the first token of every document."""
    index = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    starts = torch.where(changes(document_ids), index, 0).cummax(dim=1).values
    return index - starts


def runs(document_ids: Tensor, token_type_ids: Tensor) -> Tensor:
    """Number each maximal run of one token type in one document; int64[B, T]."""
    return (changes(document_ids) | changes(token_type_ids)).cumsum(dim=1)


def changes(values: Tensor) -> Tensor:
    """Where a value differs from the one before it (False at the start); bool[B, T]."""
    first = torch.zeros_like(values[:, :1], dtype=torch.bool)
    return torch.cat([first, values[:, 1:] != values[:, :-1]], dim=1)

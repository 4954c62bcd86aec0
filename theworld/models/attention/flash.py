"""The rule as flash attention calls: no mask tensor, and nothing that waits for the device.

The rule without bidirectional world tokens is exactly
    1. causal attention inside every document (with a window on sliding layers), for all rows;
    2. for the rows of an image, instead of that, attention to everything from the start of their document to the end
       of the image (less than a window back on sliding layers, no limit ahead).
Both are variable-length flash calls. Where documents and images begin is read on the device into tensors whose
shapes are fixed by the sizes of the batch, so moving documents neither recompiles nor synchronises.

    B rows · T tokens of a row · I images · N tokens of an image · L = B·T · K = most documents
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from theworld.models.attention.flash_op import document_attention
from theworld.models.attention.rule import changes
from theworld.types import TokenType


class FlashLayout(NamedTuple):
    """Where documents and images lie in the `L` tokens of a batch, as variable-length kernels want it.

    Attributes:
        document_ends: int32[K + 1], cumulative: 0, the end of each document, then `L` for documents there are not.
        image_rows: int64[I·N], the positions of image tokens.
        image_ends: int32[2I + 2], cumulative number of image rows up to each stretch of `key_ends`.
        key_ends: int32[R, 2I + 2], cumulative ends of the stretches of keys in round `r`: what lies before an image's
            document, then from there to the end of the image, and so on; the first kind has no query.
        image_round: int64[I·N], the round in which each image row sees its keys: images of one document take turns.
        length: T, the longest a document can be.
        window: Window of a sliding layer, -1 for a global one.
    """

    document_ends: Tensor
    image_rows: Tensor
    image_ends: Tensor
    key_ends: Tensor
    image_round: Tensor
    length: int
    window: int


def flash_layout(
    document_ids: Tensor,
    token_type_ids: Tensor,
    *,
    sliding_window: int | None,
    num_images: int,
    image_tokens: int,
    max_documents: int,
    images_per_document: int = 1,
) -> FlashLayout:
    """The layout of a batch.

    Args:
        document_ids: int64[B, T].
        token_type_ids: int64[B, T], values of `TokenType`.
        sliding_window: Window in tokens of a sliding layer, `None` for a global layer.
        num_images: Images of the batch; each is one run of `image_tokens` tokens.
        image_tokens: Tokens of an image.
        max_documents: Upper bound of the number of documents, padding of a row counted as one; asserted.
        images_per_document: Upper bound of the images of one document; asserted.
    """
    batch, length = document_ids.shape
    total = batch * length
    first = changes(document_ids)  # (B, T)
    first[:, 0] = True
    first = first.flatten()
    torch._assert_async((first.sum() <= max_documents), f"more than {max_documents} documents in a batch")
    starts = torch.nonzero_static(first, size=max_documents, fill_value=total).flatten()  # (K,)
    ends = torch.cat([starts, starts.new_full((1,), total)])  # starts[0] is 0

    rows = torch.nonzero_static((token_type_ids == int(TokenType.IMAGE)).flatten(), size=num_images * image_tokens)
    rows = rows.flatten()  # (I·N,)
    image_first = rows[::image_tokens].contiguous()  # (I,)
    document = torch.searchsorted(starts, image_first, right=True) - 1  # (I,)
    image_start = starts[document]
    order = torch.arange(num_images, device=rows.device)
    turn = order - torch.searchsorted(document, document)  # (I,) which image of its document
    if num_images:
        torch._assert_async((turn.max() < images_per_document), f"more than {images_per_document} images a document")
    rounds = torch.arange(images_per_document, device=rows.device)[:, None]  # (R, 1)
    mine = turn[None] == rounds  # (R, I)
    # An image whose turn it is not gets an empty stretch where the last one ended.
    stop = torch.where(mine, image_first + image_tokens, 0).cummax(dim=1).values  # (R, I)
    before = torch.cat([stop.new_zeros(images_per_document, 1), stop[:, :-1]], dim=1)
    begin = torch.where(mine, image_start, before)  # (R, I)
    stretches = torch.stack([begin, stop], dim=2).flatten(1)  # (R, 2I)
    edge = stretches.new_zeros(images_per_document, 1)
    key_ends = torch.cat([edge, stretches, edge + total], dim=1)  # (R, 2I + 2)
    seen = torch.stack([order, order + 1], dim=1).flatten() * image_tokens  # (2I,)
    image_ends = torch.cat([order.new_zeros(1), seen, order.new_full((1,), num_images * image_tokens)])  # (2I + 2,)
    return FlashLayout(
        document_ends=ends.to(torch.int32),
        image_rows=rows,
        image_ends=image_ends.to(torch.int32),
        key_ends=key_ends.to(torch.int32),
        image_round=turn.repeat_interleave(image_tokens),
        length=length,
        window=-1 if sliding_window is None else sliding_window,
    )


def flash_kernel(query: Tensor, key: Tensor, value: Tensor, layout: FlashLayout, *, scale: float) -> Tensor:
    """float[B, H, T, d], float[B, G, T, d] ×2 → float[B, H, T, d]."""
    batch = query.shape[0]
    flat = [states.transpose(1, 2).flatten(0, 1) for states in (query, key, value)]  # (L, heads, d)
    attended = document_attention(
        *flat,
        layout.document_ends,
        layout.image_rows,
        layout.image_ends,
        layout.key_ends,
        layout.image_round,
        layout.length,
        layout.window,
        scale,
    )[0]
    return attended.unflatten(0, (batch, -1)).transpose(1, 2)

"""The rule as flash attention calls: no mask tensor, and nothing that waits for the device.

The rule without bidirectional world tokens is exactly
    1. causal attention inside every document (with a window on sliding layers), for all rows;
    2. for the rows of an image, instead of that, attention to everything from the start of their document to the end
       of the image (less than a window back on sliding layers, no limit ahead).
Both are variable-length flash calls; on sliding layers the second is given copies of the keys that images can see,
where they are fewer than all keys. Where documents and images begin is read on the device into tensors whose shapes are
fixed by the sizes of the batch, so moving documents neither recompiles nor synchronises.

    B rows · T tokens of a row · I images · N tokens of an image · L = B·T · K = most documents
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from theworld.models.attention.flash_op import document_attention
from theworld.models.attention.rule import changes
from theworld.models.attention.sequences import Kernel
from theworld.types import TokenType


class FlashLayout(NamedTuple):
    """Where documents and images lie in the `L` tokens of a batch, as variable-length kernels want it.

    Attributes:
        document_ends: int32[K + 1], cumulative: 0, the end of each document, then `L` for documents there are not.
        image_rows: int64[I·N], the positions of image tokens.
        image_keys: int64[I·W], positions of the keys of the second call on sliding layers: for each image the W tokens
            up to its end; int64[0] where all `L` are keys: on global layers, and where these are no fewer.
        image_ends: int32[2I + 2], cumulative number of image rows up to each stretch of `key_ends`.
        key_ends: int32[R, 2I + 2], cumulative ends of the stretches of keys in round `r`: what an image does not see,
            then what it sees, and so on; the first kind has no query.
        image_round: int64[I·N], the round in which each image row sees its keys: where all are keys, images of one
            document take turns.
        length: T, the longest a document can be.
        window: Window of a sliding layer, -1 for a global one.
        kernel: Whose calls they are: `flash` is PyTorch's FlashAttention-2, `flash4` FlashAttention-4.
    """

    document_ends: Tensor
    image_rows: Tensor
    image_keys: Tensor
    image_ends: Tensor
    key_ends: Tensor
    image_round: Tensor
    length: int
    window: int
    kernel: Kernel


def flash_layout(
    document_ids: Tensor,
    token_type_ids: Tensor,
    *,
    sliding_window: int | None,
    num_images: int,
    image_tokens: int,
    max_documents: int,
    images_per_document: int = 1,
    kernel: Kernel = "flash",
) -> FlashLayout:
    """The layout of a batch.

    Args:
        document_ids: int64[B, T].
        token_type_ids: int64[B, T], values of `TokenType`.
        sliding_window: Window in tokens of a sliding layer, `None` for a global layer.
        num_images: Images of the batch; each is one run of `image_tokens` tokens.
        image_tokens: Tokens of an image.
        max_documents: Upper bound of the number of documents, padding of a row counted as one; asserted.
        images_per_document: Upper bound of the images of one document; asserted on global layers at least.
        kernel: See `FlashLayout`.
    """
    batch, length = document_ids.shape
    total = batch * length
    starts = _document_starts(document_ids, max_documents)  # (K,)
    rows = torch.nonzero_static((token_type_ids == int(TokenType.IMAGE)).flatten(), size=num_images * image_tokens)
    rows = rows.flatten()  # (I·N,)
    stop = rows[::image_tokens] + image_tokens  # (I,) where each image ends
    document = torch.searchsorted(starts, stop - 1, right=True) - 1  # (I,)
    order = torch.arange(num_images, device=rows.device)
    first = starts[document]  # (I,) the first key that each image can see
    block = total
    if sliding_window is not None:
        block = min(sliding_window - 1 + image_tokens, length)  # W
        first = torch.maximum(first, stop - block)
    # Images of one document would have to take turns at all keys, but not at blocks of their own.
    if sliding_window is None or (images_per_document == 1 and num_images * block >= total):
        turn = order - torch.searchsorted(document, document)  # (I,) which image of its document
        stretches = _turns(first, stop, turn, images_per_document)  # (R, 2I)
        keys, num_keys = rows.new_empty(0), total
    else:
        turn = torch.zeros_like(order)
        stretches, keys = _blocks(first, stop, block)  # (1, 2I), (I·W,)
        num_keys = num_images * block
    edge = stretches.new_zeros(len(stretches), 1)
    queries = torch.stack([order, order + 1], dim=1).flatten() * image_tokens  # (2I,)
    return FlashLayout(
        document_ends=torch.cat([starts, starts.new_full((1,), total)]).to(torch.int32),  # starts[0] is 0
        image_rows=rows,
        image_keys=keys,
        image_ends=torch.cat([order.new_zeros(1), queries, order.new_full((1,), len(rows))]).to(torch.int32),
        key_ends=torch.cat([edge, stretches, edge + num_keys], dim=1).to(torch.int32),
        image_round=turn.repeat_interleave(image_tokens),
        length=length,
        window=-1 if sliding_window is None else sliding_window,
        kernel=kernel,
    )


def _document_starts(document_ids: Tensor, max_documents: int) -> Tensor:
    """int64[K], the first position of each document, then the number of positions for documents there are not."""
    first = changes(document_ids)  # (B, T)
    first[:, 0] = True
    torch._assert_async((first.sum() <= max_documents), f"more than {max_documents} documents in a batch")
    return torch.nonzero_static(first.flatten(), size=max_documents, fill_value=first.numel()).flatten()


def _turns(start: Tensor, stop: Tensor, turn: Tensor, rounds: int) -> Tensor:
    """Stretches of keys when all tokens are keys and images of one document see some of the same: int64[R, 2I].

    Args:
        start: int64[I], the first key that each image can see.
        stop: int64[I], where each image ends.
        turn: int64[I], the round of each image.
        rounds: R.
    """
    if len(turn):
        torch._assert_async((turn.max() < rounds), f"more than {rounds} images a document")
    mine = turn[None] == torch.arange(rounds, device=turn.device)[:, None]  # (R, I)
    # An image whose turn it is not gets an empty stretch where the last one ended.
    stop = torch.where(mine, stop, 0).cummax(dim=1).values  # (R, I)
    before = torch.cat([stop.new_zeros(rounds, 1), stop[:, :-1]], dim=1)
    return torch.stack([torch.where(mine, start, before), stop], dim=2).flatten(1)


def _blocks(start: Tensor, stop: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Stretches of keys when each image has a block of its own, and the positions in the blocks: int64[1, 2I], [I·W].

    Args:
        start: int64[I], the first key that each image can see.
        stop: int64[I], where each image ends; its block ends there, too.
        size: W, positions of a block.
    """
    ends = torch.arange(1, len(stop) + 1, device=stop.device) * size
    stretches = torch.stack([ends - (stop - start), ends], dim=1).flatten()[None]
    # What lies before the first token has no query, whichever row stands there.
    positions = (stop[:, None] - size + torch.arange(size, device=stop.device)).clamp(min=0)  # (I, W)
    return stretches, positions.flatten()


def flash_kernel(query: Tensor, key: Tensor, value: Tensor, layout: FlashLayout, *, scale: float) -> Tensor:
    """float[B, H, T, d], float[B, G, T, d] ×2 → float[B, H, T, d]."""
    batch = query.shape[0]
    flat = [states.transpose(1, 2).flatten(0, 1) for states in (query, key, value)]  # (L, heads, d)
    attended = document_attention(
        *flat,
        layout.document_ends,
        layout.image_rows,
        layout.image_keys,
        layout.image_ends,
        layout.key_ends,
        layout.image_round,
        layout.length,
        layout.window,
        scale,
        layout.kernel,
    )[0]
    return attended.unflatten(0, (batch, -1)).transpose(1, 2)

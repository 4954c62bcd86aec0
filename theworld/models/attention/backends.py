"""Which kernel computes attention: chosen by the mask that a layer is given, so one model can run all of them.

transformers looks attention up by name. The language model's is `theworld`; a tensor (or nothing) goes to PyTorch's
scaled dot-product attention as in transformers, a `BlockMask` to flex attention, a `FlashLayout` to flash attention.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask as transformers_sdpa_mask

from theworld.models.attention import flash4
from theworld.models.attention.flash import FlashLayout, flash_kernel, flash_layout
from theworld.models.attention.flex import flex_kernel, flex_mask
from theworld.models.attention.sdpa import sdpa_mask
from theworld.models.configuration import TheWorldConfig

AttentionBackend = Literal["sdpa", "flex", "flash", "flash4"]
Mask = Tensor | BlockMask | FlashLayout

NAME = "theworld"
"""Under which transformers knows `attention`."""


def layer_masks(
    backend: AttentionBackend,
    document_ids: Tensor,
    token_type_ids: Tensor,
    config: TheWorldConfig,
    *,
    num_images: int,
    max_documents: int,
) -> dict[str, Mask]:
    """The rule for each kind of layer, in the form the backend reads: what `Gemma3TextModel` takes as a mask.

    Args:
        backend: `sdpa` (any device, the reference), `flex`, `flash` or `flash4` (a GPU).
        document_ids: int64[B, T].
        token_type_ids: int64[B, T], values of `TokenType`.
        config: Of the fused model.
        num_images: Images of the batch.
        max_documents: Upper bound of its documents (`most_documents`).

    Raises:
        ValueError: An unknown backend, or bidirectional world tokens with `flash`.
    """
    check_backend(backend, bidirectional_world=config.bidirectional_world)
    windows = {"full_attention": None, "sliding_attention": config.get_text_config().sliding_window}
    if backend in ("flash", "flash4"):
        return {
            kind: flash_layout(
                document_ids,
                token_type_ids,
                sliding_window=window,
                num_images=num_images,
                image_tokens=config.gemma_config.mm_tokens_per_image,
                max_documents=max_documents,
                kernel=backend,
            )
            for kind, window in windows.items()
        }
    make = sdpa_mask if backend == "sdpa" else flex_mask
    return {
        kind: make(document_ids, token_type_ids, sliding_window=window, bidirectional_world=config.bidirectional_world)
        for kind, window in windows.items()
    }


def most_documents(shape: torch.Size, config: TheWorldConfig) -> int:
    """How many documents a batch of `shape` (B, T) can hold, the padding of each row counted as one.

    Every sample has an image, and its world tokens, or the fewest that training draws; one shorter than that a row is
    allowed for. A bound that is close matters, because a kernel looks at all of them. `flash_layout` asserts it.
    """
    batch, length = shape
    shortest = config.gemma_config.mm_tokens_per_image + (config.fewest_world_tokens if config.enable_world else 0)
    return 2 * batch + batch * length // shortest


def check_backend(backend: str, *, bidirectional_world: bool) -> None:
    """Refuse a backend that does not exist, is not installed where there is a GPU, or cannot follow the rule."""
    if backend not in get_args(AttentionBackend):
        raise ValueError(f"found attention backend {backend!r}, expected one of {get_args(AttentionBackend)}")
    if backend in ("flash", "flash4") and bidirectional_world:
        raise ValueError(
            f"found attention backend {backend!r} with bidirectional_world=True, expected causal world tokens: flash "
            "has no call for them; use 'flex'"
        )
    if backend == "flash4" and torch.cuda.is_available():  # on a CPU every flash backend is plain products
        flash4.check_installed()


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Mask | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: float[B, H, T, d], float[B, G, T, d] ×2 → float[B, T, H, d]."""
    if isinstance(attention_mask, FlashLayout | BlockMask):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        query, key, value = (_as_autocast_has_it(states) for states in (query, key, value))
        if isinstance(attention_mask, FlashLayout):
            attended = flash_kernel(query, key, value, attention_mask, scale=scale)
        else:
            attended = flex_kernel(query, key, value, attention_mask, scale=scale)
        return attended.transpose(1, 2), None
    attended, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return attended, None


def _as_autocast_has_it(states: Tensor) -> Tensor:
    """Autocast knows PyTorch's attention and lowers its inputs; with float32 masters ours would get float32."""
    device = states.device.type
    return states.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else states


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, transformers_sdpa_mask)

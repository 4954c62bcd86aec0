"""Gemma's decoder layer by layer, with the rows that no target needs left out of the last layers.

B rows of a batch · T tokens of a row · R live rows · D hidden size
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor
from transformers import Cache, Gemma3TextModel

from theworld.models.attention.backends import Mask
from theworld.models.live_rows import LiveRows

CACHE = "cache" if "cache" in inspect.signature(Gemma3TextModel.forward).parameters else "past_key_values"
"""What transformers calls the cache: `past_key_values` before 5.24."""


def decode(
    decoder: Gemma3TextModel,
    embeds: Tensor,
    position_ids: Tensor | None,
    mask: Tensor | dict[str, Mask] | None,
    *,
    cache: Cache | None,
    use_cache: bool,
) -> tuple[Tensor, Cache | None]:
    """Hidden states of all rows, float[B, T, D], and the cache."""
    decoded = decoder(
        inputs_embeds=embeds, attention_mask=mask, position_ids=position_ids, use_cache=use_cache, **{CACHE: cache}
    )
    return decoded.last_hidden_state, getattr(decoded, CACHE)


def decode_live(
    decoder: Gemma3TextModel,
    embeds: Tensor,
    position_ids: Tensor,
    masks: dict[str, Mask],
    live: LiveRows,
    *,
    masks_of: Callable[..., dict[str, Mask]],
) -> Tensor:
    """What `Gemma3TextModel` gives at the live rows of the last level; float[1, R, D].

    Args:
        decoder: Gemma's language model.
        embeds: float[B, T, D].
        position_ids: int64[B, T].
        masks: For each kind of layer, over all rows.
        live: The rows of the last layers.
        masks_of: Makes the masks of rows from their `document_ids`, their types and `num_images`.
    """
    kinds = decoder.config.layer_types
    first_trimmed = len(kinds) - len(live.levels)
    hidden = embeds
    rotary = {kind: decoder.rotary_emb(hidden, position_ids, kind) for kind in set(kinds)}
    for number, (layer, kind) in enumerate(zip(decoder.layers, kinds, strict=True)):
        mask = masks[kind]
        if number >= first_trimmed:
            level = live.levels[number - first_trimmed]
            hidden = hidden.flatten(0, 1)[level.rows][None]  # (1, R, D)
            position_ids = position_ids.flatten()[level.rows][None]  # (1, R)
            rotary = {kind: decoder.rotary_emb(hidden, position_ids, kind)}
            mask = masks_of(level.document_ids, level.token_type_ids, num_images=level.num_images)[kind]
        hidden = layer(
            hidden,
            attention_mask=mask,
            position_embeddings=rotary[kind],
            position_ids=position_ids,
        )
    return decoder.norm(hidden)

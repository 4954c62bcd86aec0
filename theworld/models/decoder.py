"""Gemma's decoder layer by layer, with the rows that no target needs left out of the last layers.

B rows of a batch · T tokens of a row · R live rows · D hidden size
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from transformers import Cache, Gemma3TextModel
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer

from theworld.models.attention.backends import Mask
from theworld.types import Level, LiveRows

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
    """What `Gemma3TextModel` gives at `live.target_rows`; float[1, R, D].

    Args:
        decoder: Gemma's language model.
        embeds: float[B, T, D].
        position_ids: int64[B, T].
        masks: For each kind of layer, over all rows.
        live: The rows of the last layers.
        masks_of: Makes the masks of rows from their `document_ids`, their types and `num_images`.
    """
    kinds = decoder.config.layer_types
    first_trimmed = len(kinds) - len(live.levels) - 1
    hidden = embeds
    rotary = {kind: decoder.rotary_emb(hidden, position_ids, kind) for kind in set(kinds)}
    for number, (layer, kind) in enumerate(zip(decoder.layers, kinds, strict=True)):
        kept: Level | None = None
        options: dict[str, Tensor] = {}
        if number == len(kinds) - 1:
            options["kept_rows"] = live.target_rows
        elif number >= first_trimmed:
            kept = live.levels[number - first_trimmed]
            options["kept_rows"] = kept.rows
        # As `execution.set_execution` has it run, if it was called: transformers' own forward knows no `kept_rows`.
        run = layer if "forward" in vars(layer) else partial(layer_forward, layer)
        hidden = run(
            hidden,
            attention_mask=masks[kind],
            position_embeddings=rotary[kind],
            position_ids=position_ids,
            **options,
        )
        if kept is not None:
            position_ids = position_ids.flatten()[kept.rows][None]  # (1, R)
            rotary = {kind: decoder.rotary_emb(hidden, position_ids, kind) for kind in set(kinds[number + 1 :])}
            masks = masks_of(kept.document_ids, kept.token_type_ids, num_images=kept.num_images)
    return decoder.norm(hidden)


def layer_forward(
    layer: Gemma3DecoderLayer, hidden_states: Tensor, *, kept_rows: Tensor | None = None, **options: Any
) -> Tensor:
    """`Gemma3DecoderLayer.forward`; with `kept_rows` only these rows go on behind the attention.

    Args:
        layer: One of the decoder's.
        hidden_states: float[B, T, D].
        kept_rows: int64[R], flat indices into B·T; the result is float[1, R, D].
        options: What the layer's forward takes besides.
    """
    if kept_rows is None:
        return type(layer).forward(layer, hidden_states, **options)
    attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **options)
    hidden = hidden_states.flatten(0, 1)[kept_rows][None]  # (1, R, D)
    hidden = hidden + layer.post_attention_layernorm(attended.flatten(0, 1)[kept_rows][None])
    return hidden + layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(hidden)))

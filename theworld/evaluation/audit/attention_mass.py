"""How much attention goes to world tokens, layer by layer, from the queries and keys that the model itself computes.

transformers looks an attention function up by name. For the measured forward the language model is given another name,
whose function computes the softmax weights in float32 and then attends as before.

    B rows · T tokens of a row · H query heads · G key heads · d width of a head · M target rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask as transformers_sdpa_mask

from theworld.models.attention import backends
from theworld.models.theworld import TheWorld
from theworld.types import Batch, TokenType

Measure = Callable[[nn.Module, Tensor, Tensor, Tensor, float], None]
"""Is given module, query, key, mask and scale of a layer."""

_NAME = "theworld_measured"


@dataclass(frozen=True, kw_only=True)
class LayerMass:
    """Mean over the target rows and the query heads of one layer.

    Attributes:
        layer: Its number, from 0.
        kind: `sliding_attention` or `full_attention`.
        world: Share of the attention on world tokens, in [0, 1].
        image: Share on image tokens.
        uniform_world: Share of world tokens among the visible ones, which even attention would give them.
    """

    layer: int
    kind: str
    world: float
    image: float
    uniform_world: float


@dataclass(frozen=True, kw_only=True)
class AttentionMass:
    """Of a few samples, at the rows that predict an answer's tokens.

    Attributes:
        layers: One a layer.
        is_reachable: Whether anything of a world token can reach a target row, over all layers and masks.
    """

    layers: tuple[LayerMass, ...]
    is_reachable: bool


@torch.no_grad()
def attention_mass(model: TheWorld, batches: Sequence[Batch]) -> AttentionMass:
    """Measure one forward of each padded batch with its answers; the model's backend must be `sdpa`.

    The weight of key k for query q is softmax over the visible keys of q·k × scale, as in `eager` attention; it is
    summed over the keys of a type. Target rows are those that predict a token of an answer.
    """
    shares: dict[tuple[int, str], list[Tensor]] = {}
    is_reachable = False
    for batch in batches:
        is_reachable |= _measure(model, batch, shares)
    layers = []
    for (layer, kind), found in sorted(shares.items()):
        world, image, uniform = torch.cat(found).mean(dim=0).tolist()
        layers.append(LayerMass(layer=layer, kind=kind, world=world, image=image, uniform_world=uniform))
    return AttentionMass(layers=tuple(layers), is_reachable=is_reachable)


def _measure(model: TheWorld, batch: Batch, shares: dict[tuple[int, str], list[Tensor]]) -> bool:
    """Add float32[M, 3] a layer to `shares`; whether a world token can reach a target row."""
    rows, width = batch.target_positions, batch.input_ids.shape[1]
    types = batch.token_type_ids  # (B, T)
    reached = types == TokenType.WORLD  # (B, T)

    def measure(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor, scale: float) -> None:
        nonlocal reached
        weights = target_weights(query, key, mask, rows, scale=scale).mean(dim=1)  # (M, T)
        is_world, is_image = (types[rows // width] == kind for kind in (TokenType.WORLD, TokenType.IMAGE))
        visible = mask[rows // width, 0, rows % width]  # (M, T)
        uniform = (visible & is_world).sum(-1) / visible.sum(-1)
        columns = [(weights * is_world).sum(-1), (weights * is_image).sum(-1), uniform]
        shares.setdefault((cast(int, module.layer_idx), str(module.layer_type)), []).append(
            torch.stack(columns, dim=1).cpu()
        )
        reached = reached | (mask[:, 0] & reached[:, None]).any(-1)  # (B, T)

    with _measured(model, measure):
        model(
            batch.input_ids,
            token_type_ids=types,
            position_ids=batch.position_ids,
            document_ids=batch.document_ids,
            pixel_values=batch.pixel_values,
            world_pixel_values=batch.world_pixel_values,
            logits_to_keep=1,
        )
    return bool(reached.flatten()[rows].any())


def target_weights(query: Tensor, key: Tensor, mask: Tensor, rows: Tensor, *, scale: float) -> Tensor:
    """Attention weights of some rows; float32[M, H, T].

    Args:
        query: float[B, H, T, d], after norm and rotation.
        key: float[B, G, T, d]; H / G query heads share a key head.
        mask: bool[B, 1, T, T].
        rows: int64[M], flat indices into B·T, in ascending order.
        scale: Of the products.
    """
    width = query.shape[2]
    weights = []
    for row in range(len(query)):
        places = rows[rows // width == row] % width
        asked = query[row, :, places].float()  # (H, m, d)
        keys = key[row].repeat_interleave(query.shape[1] // key.shape[1], dim=0).float()  # (H, T, d)
        products = asked @ keys.transpose(1, 2) * scale  # (H, m, T)
        weights.append(products.masked_fill(~mask[row, 0, places], float("-inf")).softmax(dim=-1).transpose(0, 1))
    return torch.cat(weights)


@contextmanager
def _measured(model: TheWorld, measure: Measure) -> Iterator[None]:
    """Let `measure(module, query, key, mask, scale)` see the attention of every layer."""
    if model.attention_backend != "sdpa":
        raise ValueError(
            f"found attention_backend={model.attention_backend!r}, expected 'sdpa', whose mask can be read; set it"
        )

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor,
        dropout: float = 0.0,
        scaling: float | None = None,
        **kwargs: object,
    ) -> tuple[Tensor, None]:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        measure(module, query, key, attention_mask, scale)
        return backends.attention(module, query, key, value, attention_mask, dropout, scaling, **kwargs)

    AttentionInterface.register(_NAME, attend)
    AttentionMaskInterface.register(_NAME, transformers_sdpa_mask)
    config = model.gemma.model.language_model.config
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = backends.NAME

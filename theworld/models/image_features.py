"""Gemma's image path in two halves: what depends on SigLIP alone, and so can be cached, and the projection behind it.

I images · P patches of a side · N image tokens · S width of SigLIP · D hidden size
"""

from __future__ import annotations

from torch import Tensor
from transformers import Gemma3ForConditionalGeneration


def image_features(gemma: Gemma3ForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """SigLIP's patches, averaged to one feature a token; `float[I, 3, H, W]` → `float[I, N, S]`."""
    patches = gemma.model.vision_tower(pixel_values=pixel_values, return_dict=True).last_hidden_state  # (I, P·P, S)
    projector = gemma.model.multi_modal_projector
    side = projector.patches_per_image
    grid = patches.transpose(1, 2).reshape(len(patches), -1, side, side).contiguous()  # (I, S, P, P)
    return projector.avg_pool(grid).flatten(2).transpose(1, 2)  # (I, N, S)


def image_tokens(gemma: Gemma3ForConditionalGeneration, features: Tensor) -> Tensor:
    """Norm and projection to the language model's width; `float[I, N, S]` → `float[I, N, D]`."""
    projector = gemma.model.multi_modal_projector
    normed = projector.mm_soft_emb_norm(features)
    return (normed @ projector.mm_input_projection_weight).type_as(features)

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


def image_tokens(
    gemma: Gemma3ForConditionalGeneration, pixel_values: Tensor | None, features: Tensor | None = None
) -> Tensor:
    """Image tokens of pixels, or of features made before.

    Args:
        gemma: The base.
        pixel_values: float[I, 3, H, W], or none.
        features: float[I, N, S] in their place, as `image_features` gives them.

    Returns:
        float[I, N, D]; I is 0 without images.
    """
    projector = gemma.model.multi_modal_projector
    if pixel_values is not None and len(pixel_values) > 0:
        features = image_features(gemma, pixel_values)
    elif features is not None:  # laid out as the pool does it: for another layout matrix products round differently
        features = features.transpose(1, 2).contiguous().transpose(1, 2)  # (I, N, S)
    if features is None or len(features) == 0:
        return gemma.lm_head.weight.new_empty(0, 0, gemma.lm_head.weight.shape[1])
    return (projector.mm_soft_emb_norm(features) @ projector.mm_input_projection_weight).type_as(features)

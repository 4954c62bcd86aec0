"""What transformers' `generate` asks of the fused model: images and world frames are encoded once, at the prefill."""

from __future__ import annotations

from torch import Tensor
from transformers import Cache, GenerationMixin

from theworld.models.decoder import CACHE


class WorldGenerationMixin(GenerationMixin):
    """`generate` for left-padded prompts with images and world frames.

    transformers looks for `GenerationMixin` in the names of a model's bases, so this one ends in it.
    """

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = True,
        is_first_iteration: bool = False,
        **kwargs: Tensor | int | None,
    ) -> dict[str, Tensor | Cache | bool | int | None]:
        """Inputs of one step of `generate`: images and world frames at the prefill only, then plain text."""
        if kwargs.get("document_ids") is not None:
            raise ValueError(
                "found document_ids in generate, expected a left-padded batch of one document a row; pass "
                "attention_mask=(document_ids != -1).long() instead"
            )
        cache = past_key_values if cache is None else cache
        if cache is not None and cache.is_compileable:
            raise ValueError("found a static cache, expected a dynamic one; leave cache_implementation unset")
        prepared = super().prepare_inputs_for_generation(
            input_ids,
            use_cache=use_cache,
            is_first_iteration=is_first_iteration,
            **{CACHE: cache},
            **kwargs,
        )
        if use_cache and not is_first_iteration:
            for name in ("pixel_values", "world_pixel_values", "image_features", "world_latents", "token_type_ids"):
                prepared.pop(name, None)
        prepared["use_cache"] = use_cache
        return prepared

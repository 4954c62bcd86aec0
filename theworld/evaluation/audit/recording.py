"""The real arm: greedy answers by the model's own way, and what its towers made on it, to be given to the other arms.

B prompts · V vocabulary size · C, F, h, w of a latent · N image tokens · S width of SigLIP
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from theworld.data.processor import TheWorldProcessor
from theworld.models.theworld import TheWorld, TheWorldOutput
from theworld.types import PADDING_DOCUMENT, Batch


@dataclass
class Recording:
    """What one call of `generate` passed through, on the CPU; None where it did not pass.

    Attributes:
        latents: float32[W, C, F, h/8, w/8], what the world projector was given.
        image_features: float[I, N, S], what Gemma's image projection was given.
        logits: float32[B, V] that chose the first new token.
    """

    latents: Tensor | None = None
    image_features: Tensor | None = None
    logits: Tensor | None = None


@contextmanager
def recorded(model: TheWorld) -> Iterator[Recording]:
    """Fill a `Recording` with what the model computes inside the block; it computes the same as without."""
    recording = Recording()

    def latents(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        recording.latents = given[0].detach().cpu()

    def features(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        recording.image_features = given[0].detach().cpu()

    def logits(module: nn.Module, given: tuple[Tensor, ...], made: TheWorldOutput) -> None:
        if recording.logits is None:
            assert made.logits is not None
            recording.logits = made.logits[:, -1].detach().float().cpu()  # (B, V)

    handles = [
        model.gemma.model.multi_modal_projector.mm_soft_emb_norm.register_forward_pre_hook(features),
        model.register_forward_hook(logits),
    ]
    if model.cosmos_encoder is not None:
        handles.append(model.cosmos_encoder.projector.register_forward_pre_hook(latents))
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def greedy_answers(model: TheWorld, processor: TheWorldProcessor, batch: Batch, *, max_new_tokens: int) -> list[str]:
    """One answer a prompt of a left-padded batch, up to the end of the turn."""
    generated = model.generate(
        input_ids=batch.input_ids,
        token_type_ids=batch.token_type_ids,
        attention_mask=(batch.document_ids != PADDING_DOCUMENT).long(),
        pixel_values=batch.pixel_values,
        world_pixel_values=batch.world_pixel_values,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=processor.end_of_turn_id,
        pad_token_id=processor.pad_token_id,
    )  # (B, T + new tokens)
    answers = generated[:, batch.input_ids.shape[1] :].tolist()
    return [processor.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]

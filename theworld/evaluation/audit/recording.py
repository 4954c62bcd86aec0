"""What the towers made while a batch was answered, to be given to the other arms, and the logits of its first tokens.

B prompts · V vocabulary size · C, F, h, w of a latent · N image tokens · S width of SigLIP
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from theworld.models.theworld import TheWorld, TheWorldOutput


@dataclass
class Recording:
    """What the first pass over a batch went through, on the CPU; None where it did not pass.

    Rows that are answered again alone, for a near tie, come later and leave no trace.

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
        if recording.latents is None:
            recording.latents = given[0].detach().cpu()

    def features(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if recording.image_features is None:
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

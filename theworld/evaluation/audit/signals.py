"""How loud the world tokens are, and where the gradient of the answers goes.

n samples · N tokens of one frame · D hidden size
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from theworld.evaluation.audit.arms import Arms, Group
from theworld.models.image_features import image_tokens
from theworld.models.loading import text_rms
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.types import PADDING_DOCUMENT, Batch, TokenType


@dataclass(frozen=True, kw_only=True)
class Loudness:
    """Root mean squares over the audited set.

    Attributes:
        world: Of the world tokens, as they enter the sequence.
        world_before_scaling: Of the projector's last layer, before it is brought to the text's scale.
        image: Of the image tokens.
        text: Of the embeddings of the prompts' text.
        vocabulary: Of the embeddings of the whole vocabulary, which world tokens are scaled to; rare words are louder.
        world_varying: Share of the world tokens that differs between samples: RMS of what is left when the mean over
            the set is taken off at each place, over their RMS; 0 where every sample has the same.
        distinct_world: How many samples have world tokens of their own, counted by their bytes.
    """

    world: float
    world_before_scaling: float
    image: float
    text: float
    vocabulary: float
    world_varying: float
    distinct_world: int


@torch.no_grad()
def loudness(model: TheWorld, arms: Arms, groups: Sequence[Group]) -> Loudness:
    """Of the real arm's inputs."""
    assert model.cosmos_encoder is not None
    layers = model.cosmos_encoder.projector.layers
    means: dict[str, list[tuple[float, int]]] = {}
    distinct: set[bytes] = set()

    def add(name: str, values: Tensor) -> None:
        means.setdefault(name, []).append((float(values.double().square().mean()), values.numel()))

    handle = layers.register_forward_hook(lambda module, given, made: add("world_before_scaling", made))
    try:
        for group in groups:
            world = arms.world_tokens(group.latents)  # (B, N, D)
            add("world", world)
            add("varying", world - arms.mean_tokens)
            distinct |= {
                hashlib.sha256((tokens.float() + 0.0).cpu().numpy().tobytes()).digest() for tokens in world
            }  # −0 is 0
            add("image", image_tokens(model.gemma, None, group.image_features.to(world.device)))
            batch = group.prompts.batch
            is_text = (batch.token_type_ids == TokenType.TEXT) & (batch.document_ids != PADDING_DOCUMENT)
            add("text", model.get_input_embeddings()(batch.input_ids[is_text].to(world.device)))
    finally:
        handle.remove()
    totals = {name: sum(n for _, n in parts) for name, parts in means.items()}
    found = {name: (sum(m * n for m, n in parts) / totals[name]) ** 0.5 for name, parts in means.items()}
    varying = found.pop("varying")
    vocabulary = text_rms(model.gemma)
    return Loudness(
        **found,
        vocabulary=vocabulary,
        world_varying=varying / found["world"] if found["world"] else 0.0,
        distinct_world=len(distinct),
    )


@dataclass(frozen=True, kw_only=True)
class GroupGradient:
    """Of one parameter group.

    Attributes:
        norm: L2 norm of the gradient of the mean cross-entropy of the answers' tokens.
        parameters: How many the group has.
    """

    norm: float
    parameters: int


def gradient_norms(model: TheWorld, batches: Sequence[Batch]) -> dict[str, GroupGradient]:
    """Of every parameter group, also of those that never trained; one batch at a time, so that memory suffices.

    The model's own gradients and `requires_grad` are left as they were.

    Raises:
        ValueError: A gradient is not finite.
    """
    groups = parameter_groups(model)
    parameters = [parameter for members in groups.values() for _, parameter in members]
    before = [(parameter.requires_grad, parameter.grad) for parameter in parameters]
    targets = sum(batch.num_target_tokens for batch in batches)
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
            parameter.grad = None
        with torch.enable_grad():
            for batch in batches:
                output = model(
                    batch.input_ids,
                    token_type_ids=batch.token_type_ids,
                    position_ids=batch.position_ids,
                    document_ids=batch.document_ids,
                    pixel_values=batch.pixel_values,
                    world_pixel_values=batch.world_pixel_values,
                    labels=batch.labels,
                    target_positions=batch.target_positions,
                    num_items_in_batch=targets,
                )
                output.loss.backward()
        found = {group: _gradient([p for _, p in members]) for group, members in groups.items()}
    finally:
        for parameter, (requires_grad, gradient) in zip(parameters, before, strict=True):
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
    if broken := [group for group, gradient in found.items() if not math.isfinite(gradient.norm)]:
        raise ValueError(
            f"found a gradient that is not finite in {', '.join(broken)}, expected numbers; all weights and logits are "
            "finite, so something overflows on the way back: compute in float32, or take an earlier checkpoint"
        )
    return found


def _gradient(parameters: Sequence[torch.nn.Parameter]) -> GroupGradient:
    squares = [float(p.grad.double().square().sum()) for p in parameters if p.grad is not None]
    return GroupGradient(norm=sum(squares) ** 0.5, parameters=sum(p.numel() for p in parameters))

"""What trains, in which precision and with which decay: what follows from the groups of the model's parameters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypedDict

from torch import nn

from theworld.models.parameter_groups import NamedParameters, parameter_groups
from theworld.models.projector import WorldProjector
from theworld.models.theworld import TheWorld


class OptimizerGroup(TypedDict):
    """One parameter group of the optimizer: a group of ours, with or without weight decay."""

    params: NamedParameters
    group: str
    weight_decay: float


def set_trainable(model: TheWorld, groups: Collection[str]) -> None:
    """Let exactly the parameters of `groups` train, and drop the gradients of all others."""
    known = parameter_groups(model)
    if unknown := sorted(set(groups) - set(known)):
        raise ValueError(
            f"found {', '.join(unknown)} among the groups to train, expected some of {', '.join(known)}; "
            "a model with enable_world=False has no world groups: leave them out of the stage"
        )
    for group, parameters in known.items():
        for _, parameter in parameters:
            parameter.requires_grad_(group in groups)
            if group not in groups:
                parameter.grad = None


def promote(model: TheWorld, groups: Collection[str]) -> None:
    """Cast the parameters of `groups` to float32 in place, so that small updates are not rounded away."""
    for group in groups:
        for _, parameter in parameter_groups(model)[group]:
            parameter.data = parameter.data.float()


def optimizer_param_groups(model: TheWorld, *, groups: Sequence[str], weight_decay: float) -> list[OptimizerGroup]:
    """Parameter groups of the optimizer: two for each of `groups`, with weight decay and without it.

    No decay for what has one dimension (norms, biases; also a norm's weight stored with dimensions of size 1) and for
    embeddings, of tokens as of world steps. Parameters are given with their names, which the optimizer's state keeps.
    """
    known = parameter_groups(model)
    kinds = (nn.Embedding, WorldProjector)  # a projector's own parameter is its temporal embedding
    embeddings = {p for m in model.modules() if isinstance(m, kinds) for p in m.parameters(recurse=False)}

    def decays(parameter: nn.Parameter) -> bool:
        return parameter not in embeddings and sum(size > 1 for size in parameter.shape) > 1

    result: list[OptimizerGroup] = []
    for group in groups:
        for decayed in (True, False):
            params = [(n, p) for n, p in known[group] if decays(p) is decayed]
            if params:
                result.append(OptimizerGroup(params=params, group=group, weight_decay=weight_decay if decayed else 0.0))
    return result


def trainable_counts(model: TheWorld) -> dict[str, int]:
    """Number of parameters of each group that train now."""
    return {
        group: sum(p.numel() for _, p in parameters if p.requires_grad)
        for group, parameters in parameter_groups(model).items()
    }

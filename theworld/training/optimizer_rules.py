"""What trains and how fast: one ordered table from parameter names to groups, and what follows from it.

Every parameter belongs to exactly one group. A parameter that no rule covers, and a rule that covers no parameter, are
errors: both mean that a module was renamed and that something would silently train, or silently not train.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TypedDict

from torch import nn

from theworld.models.theworld import TheWorld

GROUP_RULES: tuple[tuple[str, str], ...] = (
    (r"cosmos_encoder\.projector\.", "world_projector"),
    (r"cosmos_encoder\.vae\.", "world_encoder"),
    (r"gemma\.model\.(vision_tower|multi_modal_projector)\.", "vision"),
    (r"gemma\.(model\.language_model|lm_head)\.", "language"),
)
"""(start of a parameter's name, group); the first match wins."""

WORLD_GROUPS = ("world_projector", "world_encoder")
"""Groups that a model without a world branch does not have."""

NamedParameters = list[tuple[str, nn.Parameter]]


class OptimizerGroup(TypedDict):
    """One parameter group of the optimizer: a group of ours, with or without weight decay."""

    params: NamedParameters
    group: str
    weight_decay: float


def parameter_groups(model: TheWorld) -> dict[str, NamedParameters]:
    """Every parameter of `model` by group, in the model's own order; a tied weight counts once.

    Raises:
        ValueError: A parameter without a rule, a rule without a parameter, or a tied weight in two groups.
    """
    groups: dict[str, NamedParameters] = {group: [] for _, group in _rules(model)}
    owner: dict[nn.Parameter, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        group = _group_of(name, _rules(model))
        if parameter not in owner:
            groups[group].append((name, parameter))
        elif owner[parameter] != group:
            raise ValueError(
                f"found {name}, a tied weight, in the groups {owner[parameter]} and {group}, expected one; "
                "change GROUP_RULES so that both names fall in the same group"
            )
        owner[parameter] = group
    for pattern, group in _rules(model):
        if not groups[group]:
            raise ValueError(
                f"found no parameter for the rule {pattern!r} ({group}), expected at least one; "
                "the module was renamed: correct GROUP_RULES"
            )
    return groups


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
    embeddings. Parameters are given with their names, which the optimizer's state keeps.
    """
    known = parameter_groups(model)
    embeddings = {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}

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


def _rules(model: TheWorld) -> tuple[tuple[str, str], ...]:
    """The rules that apply: all of them, or those of a model without a world branch."""
    if model.cosmos_encoder is not None:
        return GROUP_RULES
    return tuple((pattern, group) for pattern, group in GROUP_RULES if group not in WORLD_GROUPS)


def _group_of(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, group in rules:
        if re.match(pattern, name):
            return group
    raise ValueError(
        f"found parameter {name}, covered by no rule, expected one of {[p for p, _ in rules]}; "
        "add a rule to GROUP_RULES that says which group trains it"
    )

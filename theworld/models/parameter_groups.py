"""Which group a parameter belongs to: one ordered table, for freezing, counting and training alike.

Every parameter belongs to exactly one group. A parameter that no rule covers, and a rule that covers no parameter, are
errors: both mean that a module was renamed and that something would silently train, or silently not train.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from theworld.models.theworld import TheWorld

GROUP_RULES: tuple[tuple[str, str], ...] = (
    (r"cosmos_encoder\.projector\.", "world_projector"),
    (r"cosmos_encoder\.vae\.", "world_encoder"),
    (r"gemma\.model\.(vision_tower|multi_modal_projector)\.", "vision"),
    (r"gemma\.(model\.language_model|lm_head)\.", "language"),
)
"""(start of a parameter's name, group); the first match wins."""

GROUPS = tuple(dict.fromkeys(group for _, group in GROUP_RULES))
"""The groups in the order of the table."""

WORLD_GROUPS = ("world_projector", "world_encoder")
"""Groups that a model without a world branch does not have."""

NamedParameters = list[tuple[str, nn.Parameter]]


def parameter_groups(model: TheWorld) -> dict[str, NamedParameters]:
    """Every parameter of `model` by group, in the model's own order; a tied weight counts once.

    Raises:
        ValueError: A parameter without a rule, a rule without a parameter, or a tied weight in two groups.
    """
    world = model.cosmos_encoder is not None
    rules = tuple((pattern, group) for pattern, group in GROUP_RULES if world or group not in WORLD_GROUPS)
    groups: dict[str, NamedParameters] = {group: [] for _, group in rules}
    owner: dict[nn.Parameter, str] = {}
    unused = dict(rules)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        pattern, group = _rule_of(name, rules)
        unused.pop(pattern, None)
        if parameter not in owner:
            groups[group].append((name, parameter))
        elif owner[parameter] != group:
            raise ValueError(
                f"found {name}, a tied weight, in the groups {owner[parameter]} and {group}, expected one; "
                "change GROUP_RULES so that both names fall in the same group"
            )
        owner[parameter] = group
    if unused:
        pattern, group = next(iter(unused.items()))
        raise ValueError(
            f"found no parameter for the rule {pattern!r} ({group}), expected at least one; "
            "the module was renamed: correct GROUP_RULES"
        )
    return groups


def _rule_of(name: str, rules: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    for pattern, group in rules:
        if re.match(pattern, name):
            return pattern, group
    raise ValueError(
        f"found parameter {name}, covered by no rule, expected one of {[p for p, _ in rules]}; "
        "add a rule to GROUP_RULES that says which group trains it"
    )

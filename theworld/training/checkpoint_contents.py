"""What a Lightning checkpoint of ours holds: the weights that some stage trains, and nothing else.

The frozen base is loaded from where it came from, so a checkpoint of the first stage is megabytes, not gigabytes. The
price is that loading must be checked exactly, because a missing weight would otherwise keep its base value in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.training.optimizer_rules import OptimizerGroup


def trained_weights(model: TheWorld, groups: Sequence[str], *, prefix: str) -> dict[str, Tensor]:
    """Weights of `groups` by name, each name with `prefix` before it."""
    known = parameter_groups(model)
    return {prefix + name: parameter.detach() for group in groups for name, parameter in known[group]}


def check_checkpoint(
    checkpoint: Mapping[str, object], *, weights: Mapping[str, Tensor], param_groups: Sequence[OptimizerGroup]
) -> None:
    """Refuse a checkpoint whose weights or optimizer groups are not exactly the expected ones.

    Raises:
        ValueError: Names or shapes differ, or the optimizer's state is in another order of parameters.
    """
    state = checkpoint["state_dict"]
    assert isinstance(state, Mapping)
    missing, unexpected = sorted(weights.keys() - state.keys()), sorted(state.keys() - weights.keys())
    if missing or unexpected:
        raise ValueError(
            f"found {len(state)} weights in the checkpoint, expected the {len(weights)} that model.stages trains: "
            f"{len(missing)} missing {missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}; "
            "resume with the stages and the model settings it was written with"
        )
    for name, weight in weights.items():
        if state[name].shape != weight.shape:
            raise ValueError(
                f"found shape {tuple(state[name].shape)} of {name} in the checkpoint, expected {tuple(weight.shape)}; "
                "resume with the model settings it was written with"
            )
    optimizers = checkpoint.get("optimizer_states")
    if not optimizers:
        return
    assert isinstance(optimizers, Sequence)
    found = [group["param_names"] for group in optimizers[0]["param_groups"]]
    expected = [[name for name, _ in group["params"]] for group in param_groups]
    if found != expected:
        raise ValueError(
            "found the optimizer's parameters in another order than the model's, expected the same; its state would be "
            "given to the wrong parameters. Resume with the versions of theworld and transformers that wrote it"
        )

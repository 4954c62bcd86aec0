"""AdamW in three precisions, and what each of them asks of the weights, of the trainer and of a checkpoint.

| choice       | bytes a parameter | weights that train | moments                                          |
|--------------|-------------------|--------------------|--------------------------------------------------|
| `adamw`      | 12                | float32 masters    | float32                                          |
| `adamw_bf16` | 6                 | bfloat16           | bfloat16                                         |
| `adamw_8bit` | 4 (bfloat16)      | as they are loaded | 8 bits in blocks of 256; small tensors are whole |

Gradients come on top, in the type of the weights, and those of several micro-batches are added up in it. Weights in
bfloat16 have eight bits, so most updates are smaller than the distance to the next number and rounding to the nearest
would drop them all. Stochastic rounding goes up or down with the odds that make the mean right. The two smaller ones
are torchao's, compiled at the first step (`low_precision_adamw`); bfloat16 on CUDA by a kernel of ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch

from theworld.models.theworld import TheWorld
from theworld.training.optimizer_rules import OptimizerGroup, promote

OptimizerChoice = Literal["adamw", "adamw_bf16", "adamw_8bit"]


def check_optimizer(choice: str, *, dtype: torch.dtype) -> None:
    """Refuse a choice that does not exist, that `dtype` cannot serve, or whose library is not installed.

    Args:
        choice: One of `OptimizerChoice`.
        dtype: Type in which weights are loaded.

    Raises:
        ValueError: See above.
    """
    if choice not in get_args(OptimizerChoice):
        raise ValueError(f"found optimizer={choice!r}, expected one of {get_args(OptimizerChoice)}")
    if choice == "adamw":
        return
    if choice == "adamw_bf16" and dtype != torch.bfloat16:
        raise ValueError(
            f"found optimizer=adamw_bf16 with weights loaded as {dtype}, expected torch.bfloat16: it keeps them as "
            "they are; set model.dtype=bfloat16 or model.optimizer=adamw"
        )
    try:
        import torchao.optim  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"found optimizer={choice} without torchao ({error}), expected it to be installed: "
            "pip install 'theworld[memory]', or set model.optimizer=adamw"
        ) from error


def check_precision(choice: OptimizerChoice, *, dtype: torch.dtype, precision: str, fitting: bool) -> None:
    """Refuse a trainer's precision that computes in another way than weights of `dtype` are made for.

    Beside bfloat16 weights there must be autocast, with masters and without: images and latents come in float32. No
    precision may cast the model itself (`bf16-true` does): it would cast masters, and the statistics of latents.
    """
    allowed = ("bf16-mixed",) if dtype == torch.bfloat16 else ("32-true", "bf16-mixed")
    if precision not in allowed:
        masters = fitting and choice == "adamw"
        why = "what trains is kept in float32" if masters else "images come in float32"
        raise ValueError(
            f"found trainer.precision={precision} with weights loaded as {dtype}, expected {' or '.join(allowed)}: "
            f"{why}; change trainer.precision or model.dtype"
        )


def prepare_weights(choice: OptimizerChoice, model: TheWorld, groups: Collection[str]) -> None:
    """Cast what trains to float32 for the choice that keeps masters; for the others it stays as it was loaded."""
    if choice == "adamw":
        promote(model, groups)


def make_optimizer(
    choice: OptimizerChoice, groups: Sequence[OptimizerGroup], *, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """The optimizer over `groups`, with a learning rate of 0 until `set_learning_rates`.

    It skips, and keeps no state of, what has no gradient. When it loads a state, its settings stay those given here.
    """
    settings: dict[str, Any] = {"params": [dict(group) for group in groups], "lr": 0.0, "betas": betas}
    optimizer = _of_choice(choice, settings)
    optimizer.register_load_state_dict_pre_hook(_with_own_settings)
    return optimizer


def _of_choice(choice: OptimizerChoice, settings: dict[str, Any]) -> torch.optim.Optimizer:
    if choice == "adamw":
        return _adamw(settings, fused=all(p.is_cuda for group in settings["params"] for _, p in group["params"]))
    from theworld.training.low_precision_adamw import LayerwiseAdamW, LayerwiseAdamW8bit

    kind: Any = LayerwiseAdamW if choice == "adamw_bf16" else LayerwiseAdamW8bit
    return kind(**settings, bf16_stochastic_round=True)


def _with_own_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A state without the settings of who saved it: a run that is resumed with others (`--allow_drift`) has those."""
    own = ({name: group[name] for name in ("betas", "weight_decay")} for group in optimizer.param_groups)
    groups = [saved | here for saved, here in zip(state["param_groups"], own, strict=True)]
    return state | {"param_groups": groups}


def _adamw(settings: dict[str, Any], *, fused: bool) -> torch.optim.AdamW:
    """PyTorch's; fused on a GPU, also after it has loaded the state of one that was not (and the other way round)."""
    optimizer = torch.optim.AdamW(**settings, fused=fused or None)
    # A fused step could unscale float16 gradients, for which Lightning refuses to clip them. Ours are never scaled.
    optimizer._step_supports_amp_scaling = False

    def as_here(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return state | {"param_groups": [group | {"fused": fused or None} for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(as_here)
    return optimizer


def set_learning_rates(optimizer: torch.optim.Optimizer, rates: Mapping[str, float]) -> None:
    """Set the rate of every parameter group from the `group` it belongs to."""
    for group in optimizer.param_groups:
        group["lr"] = rates[group["group"]]


@contextmanager
def rounding_of_step(choice: OptimizerChoice, step: int, device: torch.device) -> Iterator[None]:
    """Random numbers that depend on the step alone, for what is rounded stochastically in it.

    So a resumed run rounds as the uninterrupted one, and under DDP all ranks round alike, without which their weights
    would drift apart. The generators go on afterwards as if nothing had been drawn.

    Args:
        choice: With `adamw` nothing is rounded, and nothing is done.
        step: Number of the optimizer step.
        device: Where the weights are.
    """
    if choice == "adamw":
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(step)
        yield


def check_same_optimizer(checkpoint: Mapping[str, object], choice: OptimizerChoice) -> None:
    """Refuse a checkpoint of another choice: its weights would be rounded, its moments would be of another kind."""
    found = checkpoint.get("optimizer_choice", "adamw")
    if found != choice:
        raise ValueError(
            f"found a checkpoint written with optimizer={found}, expected {choice}; set model.optimizer={found}, or "
            "start from the export of a stage"
        )

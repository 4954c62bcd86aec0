"""torchao's AdamW with stochastic rounding, stepped many parameters at a time. Needs torchao (extra `memory`).

torchao calls its compiled update once a parameter: Gemma's 880 take the host 0.4 s a step, twice what the GPU needs for
all of it when rows are short. Here one call updates all parameters of a layer, and layers of the same shapes share its
code; on CUDA one kernel of ours (`stochastic_kernel`) updates all bfloat16 parameters that are whole. The formula and
the state are torchao's own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchao.optim import AdamW8bit, _AdamW
from torchao.optim.adam import single_param_adam
from torchao.optim.subclass_8bit import OptimState8bit

_VERSIONS = 256
"""How many shapes of layers may be compiled."""

_ALL = "all"
"""Stands for a layer's name where parameters of all layers are one call."""


class _Layerwise(torch.optim.Optimizer):
    """`step` for torchao's optimizers, whose parameters were given with their names."""

    bf16_stochastic_round: bool
    _new_buffer: Callable[[Tensor, bool], Tensor]  # of torchao's base class, as is the flag above

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; a parameter without a gradient is skipped, and has no state yet if it never had one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch._dynamo.config.patch(recompile_limit=_VERSIONS):
            for call, ((layer, step, lr, *settings), parameters) in enumerate(self._layers().items()):
                torch._foreach_add_([self.state[parameter]["step"] for parameter in parameters], 1)
                if layer == _ALL:
                    self._update_all(parameters, _seed(step, call), step + 1, lr, *settings)
                else:
                    # A rate that is a number would be compiled into the code, and each other one again.
                    self._update(parameters, torch.tensor(lr), *settings)
        return loss

    def _layers(self) -> dict[tuple[Any, ...], list[Tensor]]:
        """The parameters that have a gradient, by layer, steps made, rate, betas, weight decay and epsilon.

        Groups of equal settings share their layers: without weight decay matrices and norms are one call.
        """
        layers: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
        for group in self.param_groups:
            settings = float(group["lr"]), *group["betas"], group["weight_decay"], group["eps"]
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"] = self._new_buffer(parameter, True)
                    state["exp_avg_sq"] = self._new_buffer(parameter, False)
                layer = _ALL if self._is_plain(parameter, parameter.grad) else _layer_of(name)
                layers[layer, state["step"].item(), *settings].append(parameter)
        return layers

    def _is_plain(self, parameter: Tensor, gradient: Tensor) -> bool:
        """Whether the kernel takes it: bfloat16 without gaps, whole and on CUDA, as are gradient and moments."""
        if not (self.bf16_stochastic_round and parameter.is_cuda):
            return False
        state = self.state[parameter]
        return all(
            type(tensor) in (Tensor, torch.nn.Parameter) and tensor.dtype is torch.bfloat16 and tensor.is_contiguous()
            for tensor in (parameter, gradient, state["exp_avg"], state["exp_avg_sq"])
        )

    def _update_all(
        self,
        parameters: list[Tensor],
        seed: int,
        step: float,
        lr: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
        eps: float,
    ) -> None:
        from theworld.training.stochastic_kernel import update  # Triton is not installed beside PyTorch for CPUs

        update(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [self.state[parameter]["exp_avg"] for parameter in parameters],
            [self.state[parameter]["exp_avg_sq"] for parameter in parameters],
            step=step,
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            weight_decay=weight_decay,
            eps=eps,
            seed=seed,
        )

    def _update(self, parameters: list[Tensor], *settings: Any) -> None:
        states = [self.state[parameter] for parameter in parameters]
        _compiled(
            [parameter.detach() for parameter in parameters],
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            states[0]["step"],
            *settings,
            self.bf16_stochastic_round,
        )


def _seed(step: float, call: int) -> int:
    """Another one for each step and call; no generator is drawn from, which ranks may have drawn from differently."""
    return (torch.initial_seed() + 1_000_003 * int(step) + 7919 * call) % (2**31 - 1)


def _layer_of(name: str) -> str:
    layer = re.match(r".*?\.layers\.\d+\.", name)
    return "" if layer is None else layer.group()


def _together(
    parameters: list[Tensor],
    gradients: list[Tensor | None],
    means: list[Tensor],
    squares: list[Tensor],
    step: Tensor,
    lr: Tensor,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
    stochastic: bool,
) -> None:
    for p, grad, mean, square in zip(parameters, gradients, means, squares, strict=True):
        rounds = stochastic and p.dtype is torch.bfloat16
        single_param_adam(p, grad, step, mean, square, None, lr, beta1, beta2, weight_decay, eps, True, rounds)


_compiled: Callable[..., None] = torch.compile(_together, fullgraph=True, dynamic=False)


class LayerwiseAdamW(_Layerwise, _AdamW):
    """Moments of the weights' type. torchao lists `_AdamW` as public in spite of its name."""


class LayerwiseAdamW8bit(_Layerwise, AdamW8bit):
    """Moments of 8 bits, which a checkpoint holds as the plain tensors they are made of."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.register_state_dict_post_hook(_without_subclasses)
        self.register_load_state_dict_pre_hook(_with_subclasses)


def _without_subclasses(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Moments as plain tensors: Lightning cannot load them otherwise.

    It reads checkpoints with a function for `map_location`, which PyTorch refuses for subclasses of tensors.
    """

    def plain(value: object) -> object:
        if not isinstance(value, OptimState8bit):
            return value
        names, (signed, dtype) = value.__tensor_flatten__()
        return {"signed": signed, "dtype": dtype, "tensors": {name: getattr(value, name) for name in names}}

    moments = {key: {name: plain(value) for name, value in kept.items()} for key, kept in state["state"].items()}
    return state | {"state": moments}


def _with_subclasses(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The opposite of `_without_subclasses`."""

    def whole(value: object) -> object:
        if not isinstance(value, dict):
            return value
        return OptimState8bit.__tensor_unflatten__(value["tensors"], [value["signed"], value["dtype"]])

    moments = {key: {name: whole(value) for name, value in kept.items()} for key, kept in state["state"].items()}
    return state | {"state": moments}

"""How the layers run in training: compiled or not, and which of them compute their activations twice.

Both are decided for one layer at a time. A graph of the whole model would break at the placeholders and takes five
times as long to compile; the shapes of packed rows are constant, so nothing is compiled as dynamic. In evaluation mode
every layer runs as it is written: generation changes shapes at each token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from theworld.models.decoder import layer_forward
from theworld.models.read_back import wait_before_read_back
from theworld.models.theworld import TheWorld
from theworld.models.whole_rows import hold_whole_rows

_VERSIONS = 128

_COMPILER: dict[str, str | int | bool | Callable[..., object]] = {"comprehensive_padding": False}
"""No row is rounded up: a product into SigLIP's rows of 4,304 numbers copies its bias first if they are 4,352. Gemma's
rows need no rounding."""

Recompute = Literal["none", "selective", "full"]
"""Decoder layers that keep their input only and run again in the backward pass: none, every second one, all.

Compiled layers already recompute what is cheap, so the next useful step is a whole layer."""


def set_execution(model: TheWorld, *, compiled: bool, recompute: Recompute) -> None:
    """Choose how the layers run in training mode. May be called again; nothing is compiled before the next step.

    Args:
        model: Changed in place; parameters and their names stay.
        compiled: Compile every decoder layer, every layer of SigLIP, and the world encoder.
        recompute: Which decoder layers run again in the backward pass.

    Raises:
        ValueError: `recompute` is none of its values.
        RuntimeError: See `wait_before_read_back` and `hold_whole_rows`.
    """
    # Layers share their compiled code: one version for each kind of layer, and for each number of live rows.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VERSIONS)
    if recompute not in get_args(Recompute):
        raise ValueError(f"found recompute={recompute!r}, expected one of {get_args(Recompute)}")
    if compiled:
        wait_before_read_back()
        hold_whole_rows()
    for number, layer in enumerate(model.gemma.model.language_model.layers):
        again = recompute == "full" or (recompute == "selective" and number % 2 == 0)
        _run(layer, layer_forward, compiled=compiled, again=again)
    for layer in model.gemma.model.vision_tower.encoder.layers:
        _run(layer, type(layer).forward, compiled=compiled, again=False)
    if model.cosmos_encoder is not None:
        vae = model.cosmos_encoder.vae
        _run(vae, type(vae).forward, compiled=compiled, again=False)


def _run(layer: nn.Module, function: Callable[..., object], *, compiled: bool, again: bool) -> None:
    plain = partial(function, layer)
    train: Callable[..., object] = partial(checkpoint, plain, use_reentrant=False) if again else plain
    if compiled:
        train = torch.compile(train, dynamic=False, options=_COMPILER)

    def forward(*inputs: object, **options: object) -> object:
        return (train if layer.training else plain)(*inputs, **options)

    layer.forward = forward

"""Gradient clipping that is the same under every strategy: the norm is that of all gradients, wherever their rows lie.

Lightning refuses some of the combinations that occur here (a fused optimizer beside autocast, a norm under FSDP), and
PyTorch's function cannot take whole and divided gradients together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

EPSILON = 1e-6
"""Added to the norm before it divides, as `torch.nn.utils.clip_grad_norm_` does."""


def clip(parameters: Iterable[Tensor], limit: float | None, *, by_value: bool = False) -> Tensor | None:
    """Clip by norm, and return what it was before, or by value; without a limit, or with 0, do nothing."""
    if limit and not by_value:
        return clip_by_norm(parameters, limit)
    if limit:
        clip_by_value(parameters, limit)
    return None


def clip_by_norm(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients so that the norm of them together is at most `max_norm`. Nothing waits for the device.

    Args:
        parameters: Those without a gradient are left out.
        max_norm: Above 0.

    Returns:
        The norm before, a scalar in the gradients' type, the same on every device.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = gradient_norm(gradients)
    local = [_local(gradient) for gradient in gradients]
    if local:
        torch._foreach_mul_(local, torch.clamp(max_norm / (norm + EPSILON), max=1.0))
    return norm


def clip_by_value(parameters: Iterable[Tensor], max_value: float) -> None:
    """Bring every component of every gradient between `-max_value` and `max_value`."""
    for parameter in parameters:
        if parameter.grad is not None:
            _local(parameter.grad).clamp_(-max_value, max_value)


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """2-norm of all `gradients` together; a scalar on their device. With divided ones all devices must call it.

    What is whole on every device counts once; the rows of what is divided count on the device that holds them.
    """
    whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    divided = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    norm = torch.nn.utils.get_total_norm(whole)
    if not divided:
        return norm
    squared = torch.nn.utils.get_total_norm([gradient.to_local() for gradient in divided]).square()
    distributed.all_reduce(squared, group=divided[0].device_mesh.get_group())
    return (squared + norm.to(squared).square()).sqrt()


def _local(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient

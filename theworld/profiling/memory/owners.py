"""Addresses of the tensors whose purpose is known: weights, gradients, the optimizer's state, the batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.profiling.memory.events import Owner


def owners(
    model: TheWorld, optimizer: torch.optim.Optimizer | None, batch: object, device: torch.device
) -> dict[int, Owner]:
    """What lies at which address of `device` now.

    Args:
        model: Its weights, buffers and gradients.
        optimizer: Its state.
        batch: A dataclass, mapping or sequence of tensors; None for none.
        device: Tensors elsewhere are left out.
    """
    found: dict[int, Owner] = {}

    def add(category: str, part: str, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            for address, size in storages(tensor, device):
                found.setdefault(address, Owner(category, part, size))

    members = parameter_groups(model).items()
    groups: dict[Tensor, str] = {parameter: group for group, named in members for _, parameter in named}
    for parameter, group in groups.items():
        add("weights", group, [parameter.data])
        add("gradients", group, [] if parameter.grad is None else [parameter.grad])
    add("weights", "buffers", model.buffers())
    for parameter, state in optimizer.state.items() if optimizer is not None else ():
        add("optimizer_state", groups.get(parameter, "other weights"), tensors_in(state))
    add("inputs", "batch", tensors_in(batch))
    return found


def storages(tensor: Tensor, device: torch.device) -> Iterator[tuple[int, int]]:
    """Address and bytes of what a tensor, or those that a subclass is made of, keep on `device`."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from storages(getattr(tensor, name), device)
    elif tensor.device.type == device.type and tensor.numel():
        storage = tensor.untyped_storage()
        yield storage.data_ptr(), storage.nbytes()


def tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors of a nested value, in its order."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)

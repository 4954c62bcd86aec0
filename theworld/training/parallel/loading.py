"""What a checkpoint holds, on the devices it is divided among: each takes its rows, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from theworld.training.checkpoints.shards import StoredTensor, own_rows


@torch.no_grad()
def load_rows(parameter: Tensor, value: Tensor | StoredTensor) -> None:
    """Overwrite a parameter, divided or not, with `value`, of which only the rows that belong here are read."""
    if isinstance(parameter, DTensor):
        parameter.to_local().copy_(_rows(parameter, value))
    else:
        parameter.copy_(value.whole() if isinstance(value, StoredTensor) else value)


def divided_like(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state with moments that are divided as the parameters they belong to."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    moments = {
        number: {key: _like(parameter, value) for key, value in state["state"][number].items()}
        for parameter, number in zip(parameters, numbers, strict=True)
        if number in state["state"]
    }
    return dict(state) | {"state": moments}


def _like(parameter: Tensor, value: object) -> object:
    if not isinstance(value, Tensor | StoredTensor):
        return value
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value.whole() if isinstance(value, StoredTensor) else value
    return DTensor.from_local(
        _rows(parameter, value).to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _rows(parameter: DTensor, value: Tensor | StoredTensor) -> Tensor:
    first, count = own_rows(parameter)
    return value.rows(first, count) if isinstance(value, StoredTensor) else value[first : first + count]

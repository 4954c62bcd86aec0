"""The real model without its weights: every tensor has a shape and a type, and no content.

`FakeTensor`s say that they are on the CPU, though the run will be on a GPU: without CUDA, PyTorch's autograd cannot be
told of a CUDA tensor, not even of one without content.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from theworld.models.configuration import TheWorldConfig
from theworld.models.low_bit import quantise_language
from theworld.models.theworld import TheWorld
from theworld.training.module import TheWorldModule
from theworld.training.optimizers import prepare_weights


def set_weightless_model(
    module: TheWorldModule, config: TheWorldConfig, mode: FakeTensorMode, *, masters: bool = True
) -> TheWorld:
    """Give a module the model that its settings ask for, as `configure_model` would load it.

    Args:
        module: Without a model, or with one that is replaced.
        config: Shape of the model.
        mode: Makes the parameters.
        masters: Keep float32 masters where the optimizer does; else all weights are as gathered by FSDP2.
    """
    with torch.device("meta"):
        model = of_shape(config, module.load_dtype)
    if module.low_bit_base:
        quantise_language(model)
    if masters:
        prepare_weights(module.optimizer_choice, model, module.schedule.groups)
    empty_parameters(model, mode)
    model.attention_backend = module.attention_backend
    module.model = model.train()
    return model


def of_shape(config: TheWorldConfig, dtype: torch.dtype) -> TheWorld:
    """A new model whose parameters are of `dtype` and whose statistics stay float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return TheWorld(config)
    finally:
        torch.set_default_dtype(before)


def parameter_counts(config: TheWorldConfig) -> dict[str, int]:
    """Parameters of each group of a model of this shape."""
    with torch.device("meta"):
        return TheWorld(config).parameter_counts()


def empty_parameters(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replace every parameter and buffer by one without content, in place; tied weights stay tied."""
    made: dict[int, nn.Parameter] = {}

    def empty(like: Tensor) -> Tensor:
        with mode:
            return torch.empty(like.shape, dtype=like.dtype, device="cpu")

    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(empty(parameter), requires_grad=parameter.requires_grad)
            module.register_parameter(name, made[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, empty(buffer))

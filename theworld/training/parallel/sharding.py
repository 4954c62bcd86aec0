"""Divides what trains among devices: PyTorch's `fully_shard`, a decoder layer at a time.

Outside of a forward or backward pass every divided parameter is a `DTensor` that holds this device's rows of it. A unit
of the model is gathered when its forward begins, and again when its backward does:

    each decoder layer        its own unit; of the two that a device holds whole at a time, one is being fetched
    everything else           one unit, the whole model's: tied embedding and head, both projectors, SigLIP

SigLIP belongs to the whole, because a row without images never calls its layers: units of their own would be gathered
by some devices and not by others, and all would wait for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from theworld.models.execution import set_execution
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld, TheWorldOutput

_SOURCES = {"vision": ("pixel_values", "image_features"), "world": ("world_pixel_values", "world_latents")}
"""Arguments of `TheWorld.forward` without which the parameters of these groups take no part."""


def shard_model(
    model: TheWorld,
    mesh: DeviceMesh,
    *,
    divided: Collection[str],
    bfloat16: bool,
    reshard_after_forward: bool = True,
) -> None:
    """Divide the parameters of some groups over `mesh`; all others stay whole on every device, and are never sent.

    Args:
        model: Changed in place. It may be on the CPU or on the meta device; what is divided lands on the mesh's.
        mesh: One dimension, all devices.
        divided: Groups of `parameter_groups`.
        bfloat16: Gather and compute in bfloat16, and add up gradients over devices in float32. Else in the weights'
            own type.
        reshard_after_forward: Free a gathered unit between its forward and its backward.
    """
    ignored = {p for group, named in parameter_groups(model).items() if group not in divided for _, p in named}
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bfloat16 else None,
        reduce_dtype=torch.float32 if bfloat16 else None,
        cast_forward_inputs=False,  # autocast does that, where it is right; rotary angles stay as they are
    )
    # A unit is gathered by a call of its module. Until this has been called, the decoder goes round such calls.
    set_execution(model, compiled=False, recompute="none")
    # Before `fully_shard` adds its hooks, one of which takes the whole parameters away again.
    model.register_forward_hook(_include_unused, with_kwargs=True)
    for module in (*model.gemma.model.language_model.layers, model):
        if all(parameter in ignored or isinstance(parameter, DTensor) for parameter in module.parameters()):
            continue
        fully_shard(
            module,
            mesh=mesh,
            mp_policy=policy,
            reshard_after_forward=reshard_after_forward,
            ignored_params=ignored,
        )


def settle_types(model: TheWorld) -> None:
    """Let every unit settle in which type it adds up gradients, while all that any stage trains is marked as training.

    PyTorch does this in the first forward pass, from what trains then. A unit that is frozen in the first stage would
    add up in no type of its own, and fail when it begins to train. To be called when nothing is on the meta device.
    """
    if isinstance(model, FSDPModule):
        model._get_fsdp_state()._lazy_init()


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard_model` has divided any of it."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def keep_gathered(model: nn.Module) -> None:
    """Gather everything now and leave it so: for generation, where devices make different numbers of passes.

    To be called on all devices; from then on a pass needs no other device.
    """
    for module in _units(model):
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()


def divide_again(model: nn.Module, *, reshard_after_forward: bool = True) -> None:
    """The opposite of `keep_gathered`."""
    for module in _units(model):
        module.reshard()
        module.set_reshard_after_forward(reshard_after_forward, recurse=False)


def whole(tensor: Tensor) -> Tensor:
    """All rows of a tensor that may be divided; all devices must call it then."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """`model.state_dict()` with every tensor whole, on the CPU of the first process; all processes must call it.

    The others get nothing, so that they need no memory for it. Tied weights stay one tensor.
    """
    first = distributed.get_rank() == 0
    gathered: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in model.state_dict().items():
        own = parameters.get(name, tensor)
        if id(own) not in gathered:
            content = whole(own.detach())
            gathered[id(own)] = content.cpu() if first else content.new_empty(0)
        state[name] = gathered[id(own)]
    return state if first else {}


def _units(model: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in model.modules() if isinstance(module, FSDPModule))


def _include_unused(model: TheWorld, _: object, given: dict[str, Tensor | None], output: TheWorldOutput) -> None:
    """Give parameters that a row did not need a gradient of zeros.

    All devices must add up gradients of the same parameters, and a row may have no image while another device's has.
    """
    if output.loss_sum is None or not torch.is_grad_enabled():
        return
    for start, arguments in _SOURCES.items():
        values = [given.get(name) for name in arguments]
        if any(value is not None and len(value) for value in values):
            continue
        for group, named in parameter_groups(model).items():
            for _, parameter in named if group.startswith(start) else ():
                if parameter.requires_grad:
                    output.loss_sum = output.loss_sum + 0.0 * parameter.flatten()[0].to(output.loss_sum)

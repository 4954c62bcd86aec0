"""Optimizer steps of a `TheWorldModule` with every byte counted: as Lightning makes them, in the order it does.

    forward → backward (each micro-batch) → clip → optimizer → gradients are freed

Nothing here knows whether tensors hold numbers. With a weightless model it is the plan; with a real one on the CPU it
counts what really is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from theworld.models.execution import set_execution
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.models.towers import Precision, autocast
from theworld.profiling.plan.live_memory import WORKING, LiveMemory, Peak, plain_tensors
from theworld.training.module import TheWorldModule
from theworld.training.optimizer_rules import set_trainable
from theworld.training.parallel.clipping import clip
from theworld.training.stages import Stage
from theworld.types import Batch

INPUTS, GRADIENTS, OPTIMIZER, LOGITS = "inputs", "gradients", "optimizer state", "logits and loss"
EMBEDDING = "activations: embedding and masks"

_MODULES = {
    "gemma.model.vision_tower": "activations: SigLIP",
    "gemma.model.multi_modal_projector.mm_soft_emb_norm": "activations: image projector",
    "cosmos_encoder.vae": "activations: world encoder",
    "cosmos_encoder.projector": "activations: world projector",
}
"""Module → category of what it makes in the forward pass."""

_LAYERS = "activations: decoder layers"


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What decides the memory of a step besides model, optimizer and batch.

    Attributes:
        precision: By Lightning's name.
        accumulate: Micro-batches of a step on this device; beyond two nothing changes.
        clip: `trainer.gradient_clip_val`.
        fused: Run AdamW as one kernel, as on a GPU.
    """

    precision: Precision
    accumulate: int = 1
    clip: float | None = None
    fused: bool = True


@dataclass(frozen=True)
class StepMemory:
    """What was alive in the second step.

    Attributes:
        peaks: The most of each phase: forward, backward, optimizer.
        between_steps: Bytes alive between two steps, without gradients.
        gradient_bytes: Of all gradients.
    """

    peaks: dict[str, Peak]
    between_steps: int
    gradient_bytes: int

    @property
    def peak(self) -> Peak:
        """The most of all."""
        return max(self.peaks.values(), key=lambda peak: peak.bytes)


def track_steps(
    module: TheWorldModule,
    stage: Stage,
    batch: Batch,
    memory: LiveMemory,
    settings: StepSettings,
    *,
    trained_before: Collection[str] = (),
) -> StepMemory:
    """Memory of the second optimizer step of a stage; in the first the optimizer has no state yet.

    Args:
        module: With its model.
        stage: One of its stages.
        batch: The row of every micro-batch, with `live_rows` planned.
        memory: Counts.
        settings: See there.
        trained_before: Groups that an earlier stage trained: the optimizer keeps their state.
    """
    model = module.world
    set_execution(model, compiled=module.compile_layers, recompute=stage.recompute)
    with memory, _named_by_module(model, memory):
        _hold_what_is_there(model, batch, memory)
        optimizer = module.configure_optimizers()
        for group in optimizer.param_groups:
            if settings.fused and "fused" in group:
                group["fused"] = True
        set_trainable(model, trained_before)
        _make_state(optimizer, memory)
        set_trainable(model, stage.learning_rates.trained())
        for _ in range(2):
            memory.reset()
            gradient_bytes = _step(module, optimizer, batch, memory, settings)
        return StepMemory(dict(memory.peaks), memory.live_bytes, gradient_bytes)


def _step(
    module: TheWorldModule, optimizer: Optimizer, batch: Batch, memory: LiveMemory, settings: StepSettings
) -> int:
    """Make one step; gives the bytes of its gradients."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for _ in range(min(settings.accumulate, 2)):
        with memory.during("forward", EMBEDDING), autocast(settings.precision, torch.device("cpu")):
            loss = module(batch).loss_sum / batch.step_target_tokens
        with memory.during("backward", WORKING), _renamed_gradients(parameters, memory):
            loss.backward()
        del loss
    with memory.during("optimizer", WORKING):
        clip(parameters, settings.clip)
        optimizer.step()
    gradient_bytes = sum(memory.rounded(p.grad.nbytes) for p in parameters if p.grad is not None)
    optimizer.zero_grad()
    _name_state(optimizer, memory)
    return gradient_bytes


def _make_state(optimizer: Optimizer, memory: LiveMemory) -> None:
    """The optimizer's state of what trains now, as a step leaves it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    if parameters:
        optimizer.step()
        optimizer.zero_grad()
        _name_state(optimizer, memory)


def _name_state(optimizer: Optimizer, memory: LiveMemory) -> None:
    for state in optimizer.state.values():
        for tensor in plain_tensors(list(state.values())):
            memory.rename(tensor, OPTIMIZER)


def _hold_what_is_there(model: TheWorld, batch: Batch, memory: LiveMemory) -> None:
    for group, named in parameter_groups(model).items():
        for _, parameter in named:
            memory.hold(parameter, f"weights: {group.replace('_', ' ')}")
    for buffer in model.buffers():
        memory.hold(buffer, "weights: buffers")
    for tensor in tensors_of(batch):
        memory.hold(tensor, INPUTS)


def tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors in a dataclass or tuple, at any depth."""
    if isinstance(value, Tensor):
        yield value
    parts = (
        value
        if isinstance(value, tuple)
        else [getattr(value, f.name) for f in fields(value)]
        if is_dataclass(value)
        else []
    )
    for part in parts:
        yield from tensors_of(part)


@contextmanager
def _named_by_module(model: TheWorld, memory: LiveMemory) -> Iterator[None]:
    """Name what is made in a module's forward pass by the module; behind the last norm it is for the loss."""
    named = {model.get_submodule(path): name for path, name in _MODULES.items() if _has(model, path)}
    named |= dict.fromkeys(model.gemma.model.language_model.layers, _LAYERS)
    hooks = []
    for module, name in named.items():
        before: list[str] = []
        hooks.append(module.register_forward_pre_hook(partial(_enter, memory, before, name)))
        hooks.append(module.register_forward_hook(partial(_leave, memory, before)))
    norm = model.gemma.model.language_model.norm
    hooks.append(norm.register_forward_pre_hook(partial(_enter, memory, [], LOGITS)))
    yield
    for hook in hooks:
        hook.remove()


def _has(model: nn.Module, path: str) -> bool:
    return path.split(".")[0] != "cosmos_encoder" or getattr(model, "cosmos_encoder", None) is not None


def _enter(memory: LiveMemory, before: list[str], name: str, *_: object) -> None:
    before.append(memory.category)
    memory.category = name


def _leave(memory: LiveMemory, before: list[str], *_: object) -> None:
    memory.category = before.pop()


@contextmanager
def _renamed_gradients(parameters: list[nn.Parameter], memory: LiveMemory) -> Iterator[None]:
    def rename(parameter: Tensor) -> None:
        if parameter.grad is not None:
            memory.rename(parameter.grad, GRADIENTS)

    hooks = [p.register_post_accumulate_grad_hook(rename) for p in parameters if p.requires_grad]
    yield
    for hook in hooks:
        hook.remove()

"""The base is read by one process, which hands it out to the devices: the others never hold a model on their CPU.

    first process      base on its CPU, as stored ── rows, whole tensors ──┐
    every process      skeleton on the meta device → divided → memory ─────┴─→ each device's part, compared

A skeleton is the architecture alone. It goes through all that happens between loading and dividing (what trains is
marked and promoted), and each tensor is cast to the skeleton's type as it leaves the first process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor
from transformers import GenerationConfig

from theworld.models.configuration import TheWorldConfig
from theworld.models.theworld import TheWorld
from theworld.training.checkpoints.shards import own_rows

Digests = dict[str, str]
"""What a process holds of each tensor: type, shape and two sums over the bits of the values."""

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PIECE = 1 << 22


@dataclass(frozen=True)
class HandOut:
    """A model that the first process has read and all processes are to get.

    Attributes:
        skeleton: The model without memory, on every process.
        base: The model as it was read, on the first process only.
        tied: Other names of a tied parameter, and the name it goes by.
    """

    skeleton: TheWorld
    base: TheWorld | None
    tied: dict[str, str]

    @classmethod
    def read(cls, load: Callable[[], TheWorld]) -> HandOut:
        """Load the model on the first process, and its skeleton on all; all processes must call it.

        The random state goes on as the first process's, as if each had loaded the model.

        Raises:
            ValueError: The first process could not load the model, or its config makes another one.
        """
        base: TheWorld | None = None
        sent: list[dict[str, Any]] = [{}]
        try:
            if distributed.get_rank() == 0:
                with torch.device("cpu"):
                    base = load()
                sent = [_describe(base)]
        except BaseException as error:
            sent = [{"error": f"{type(error).__name__}: {error}"}]
            raise
        finally:  # also after an error, for which the others would wait until the collective times out
            distributed.broadcast_object_list(sent, src=0)
        description = sent[0]
        if "error" in description:
            raise ValueError(f"found that process 0 could not load the model ({description['error']}); see its output")
        skeleton = _skeleton(description)
        if base is not None and "_weight_conversions" in vars(base):
            skeleton._weight_conversions = base._weight_conversions  # how it is exported, which this process does
        torch.set_rng_state(torch.frombuffer(bytearray(description["random"]), dtype=torch.uint8))
        return cls(skeleton, base, description["tied"])

    @torch.no_grad()
    def fill(self, device: torch.device) -> None:
        """Give the skeleton, divided or not, memory on `device` and the base's values; all processes must call it.

        Raises:
            ValueError: A process has not got what the first one sent, or a tensor is still without memory.
        """
        model = self.skeleton
        # As swapped contents, so that parameters stay the objects they are: tied ones tied, divided ones FSDP's.
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            model.to_empty(device=device)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swaps)
        source = dict(_tensors(self.base)) if self.base is not None else None
        expected: list[Digests] = [{} for _ in range(distributed.get_world_size())]
        for name, tensor in _tensors(model):
            value = None if source is None else source[name].detach().to(device=device, dtype=tensor.dtype)
            parts = _scatter(tensor, value) if isinstance(tensor, DTensor) else _broadcast(tensor, value)
            for digests, part in zip(expected, parts, strict=False):
                digests[name] = part
        check_handed_out(model, expected, self.tied)


def check_handed_out(model: nn.Module, expected: list[Digests], tied: dict[str, str]) -> None:
    """Compare what each process holds with what the first one sent; all processes must call it.

    Args:
        model: Filled.
        expected: By process, what it was sent; only the first process's counts.
        tied: As in `HandOut`.

    Raises:
        ValueError: On all processes, for a difference on any.
    """
    sent: list[list[Digests]] = [expected]
    distributed.broadcast_object_list(sent, src=0)
    rank = distributed.get_rank()
    mine, held = sent[0][rank], {name: _local(tensor) for name, tensor in _tensors(model)}
    problems = [f"{name} on the meta device" for name in _without_memory(model)]
    for name in dict.fromkeys([*mine, *held]):
        found = "nothing"
        if name in held:
            found = "nothing (meta)" if held[name].is_meta else digest(held[name])
        if found != mine.get(name):
            problems.append(f"{name} as {found}, expected {mine.get(name, 'no such tensor')}")
    named = dict(model.named_parameters(remove_duplicate=False))
    problems += [f"{a} apart from {b}, expected one tied tensor" for a, b in tied.items() if named[a] is not named[b]]
    everywhere: list[list[str]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(everywhere, [f"on process {rank} {problem}" for problem in problems])
    if found_all := [problem for part in everywhere for problem in part]:
        raise ValueError(
            f"found {'; '.join(found_all[:5])} ({len(found_all)} in all) after the base was handed out; start again, "
            "and if it happens again look for a faulty device or link"
        )


@torch.no_grad()
def digest(tensor: Tensor) -> str:
    """Type, shape, and the sums of the bits of all values, plain and weighted by place; of any tensor with memory."""
    words = tensor.detach().contiguous().view(-1).view(_WORDS[tensor.dtype.itemsize])
    sums = torch.zeros(2, dtype=torch.int64, device=tensor.device)
    for start in range(0, len(words), _PIECE):
        piece = words[start : start + _PIECE].long()
        places = torch.arange(start + 1, start + 1 + len(piece), device=tensor.device)
        sums += torch.stack([piece.sum(), (piece * places).sum()])  # wraps around, alike everywhere
    plain, weighted = sums.tolist()
    return f"{tensor.dtype}{list(tensor.shape)}:{plain}:{weighted}"


def _describe(model: TheWorld) -> dict[str, Any]:
    """All that a process without the files needs to make the skeleton; plain data."""
    names: dict[int, str] = {}
    tied = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if (first := names.setdefault(id(parameter), name)) != name:
            tied[name] = first
    kinds = {name: (str(t.dtype), tuple(t.shape), t.requires_grad) for name, t in _tensors(model)}
    generation = model.generation_config.to_dict() if model.generation_config is not None else None
    return {
        "config": model.config.to_dict(),
        "generation": generation,
        "training": model.training,
        "kinds": kinds,
        "tied": tied,
        "random": torch.get_rng_state().numpy().tobytes(),
    }


def _skeleton(description: dict[str, Any]) -> TheWorld:
    config = TheWorldConfig.from_dict(description["config"])
    with torch.device("meta"):
        model = TheWorld(config)
    if description["generation"] is not None:
        model.generation_config = GenerationConfig.from_dict(description["generation"])
        model.gemma.generation_config = model.generation_config
    kinds: dict[str, tuple[str, tuple[int, ...], bool]] = description["kinds"]
    found = {name: tuple(tensor.shape) for name, tensor in _tensors(model)}
    if found != {name: shape for name, (_, shape, _) in kinds.items()}:
        differing = sorted(set(found.items()) ^ {(name, shape) for name, (_, shape, _) in kinds.items()})
        raise ValueError(
            f"found a model whose config makes other tensors than it has, in {differing[:4]}, expected the same: "
            "train it under another strategy, where every process loads it"
        )
    for name, tensor in list(_tensors(model)):
        dtype, _, trains = kinds[name]
        value = tensor.detach().to(getattr(torch, dtype.removeprefix("torch.")))
        if isinstance(tensor, nn.Parameter):
            tensor.data = value
            tensor.requires_grad_(trains)
        else:
            owner, _, own_name = name.rpartition(".")
            model.get_submodule(owner)._buffers[own_name] = value
    return model.train(bool(description["training"]))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, tied ones once, and all buffers, also those that are never saved."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _without_memory(model: nn.Module) -> Iterator[str]:
    """Tensors on the meta device, also those a module keeps as a plain attribute."""
    for path, module in model.named_modules():
        for name, value in (vars(module) | module._parameters | module._buffers).items():
            if isinstance(value, Tensor) and _local(value).is_meta:
                yield f"{path}.{name}"


def _broadcast(tensor: Tensor, value: Tensor | None) -> list[str]:
    """Overwrite `tensor` with the first process's value; gives what each process should then hold."""
    whole = torch.empty_like(tensor, memory_format=torch.contiguous_format) if value is None else value.contiguous()
    distributed.broadcast(_bytes(whole), src=0)
    tensor.copy_(whole)
    return [] if value is None else [digest(whole)] * distributed.get_world_size()


def _scatter(tensor: DTensor, value: Tensor | None) -> list[str]:
    """Overwrite this process's rows with those of the first process's value; gives what each should then hold."""
    world = distributed.get_world_size()
    assert (tensor.device_mesh.size(), tensor.device_mesh.get_local_rank()) == (world, distributed.get_rank())
    rows = own_rows(tensor)
    total, each = tensor.shape[0], -(-tensor.shape[0] // world)
    local = tensor.to_local()
    received = local.new_empty(each, *tensor.shape[1:])
    parts: list[Tensor] | None = None
    expected: list[str] = []
    if value is not None:
        bounds = [(min(each * rank, total), min(each * (rank + 1), total)) for rank in range(world)]
        expected = [digest(value[first:last]) for first, last in bounds]
        parts = []
        for first, last in bounds:  # all parts of one scatter have the same size, the last ones with rows to drop
            part = value[first:last].contiguous()
            parts.append(
                part if last - first == each else torch.cat([part, part.new_zeros(each - len(part), *part.shape[1:])])
            )
    distributed.scatter(_bytes(received), [_bytes(part) for part in parts] if parts is not None else None, src=0)
    local.copy_(received[: rows.number])
    return expected


def _bytes(tensor: Tensor) -> Tensor:
    """The same memory as bytes, which every backend sends, whatever the type."""
    return tensor.view(-1).view(torch.uint8)

"""Tensors that are divided among devices: each writes the rows it holds, and any number of devices reads them again.

    step=500.ckpt/
        checkpoint.pt               as ever, with a reference in the place of every divided tensor
        rows-0-of-2.safetensors     rows of the divided tensors that device 0 held, and which rows they are
        rows-1-of-2.safetensors
        manifest.json

A name in these files is the tensor's place in the checkpoint. What is read says nothing of how many wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from theworld.training.checkpoints.directory import Draft

_REFERENCE = "rows of"
"""Key of the dictionary that stands for a divided tensor."""

_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""Their names in a safetensors file."""


class Rows(NamedTuple):
    """Rows `first` to `first + number` of a tensor."""

    first: int
    number: int


class StoredTensor:
    """A tensor whose rows lie in several files. Nothing is read before it is asked for.

    Args:
        name: For messages.
        parts: File and rows of each part, in any order.
        total: Rows of the whole.

    Raises:
        ValueError: The parts are not exactly the whole.
    """

    def __init__(self, name: str, parts: list[tuple[Any, Rows]], total: int):
        self.name = name
        self._parts = sorted(parts, key=lambda part: part[1].first)
        end = 0
        for _, rows in self._parts:
            if rows.first != end:
                raise ValueError(f"found rows from {rows.first} on of {name} after row {end}, expected the next one")
            end += rows.number
        if end != total:
            raise ValueError(f"found {end} rows of {name}, expected {total}; files of the checkpoint are missing")
        self.shape = torch.Size([total, *self._parts[0][0].get_slice(name).get_shape()[1:]])

    def rows(self, first: int, count: int) -> Tensor:
        """Some rows of it, on the CPU; only these are read."""
        pieces: list[Tensor] = []
        for file, there in self._parts:
            start, stop = max(first, there.first), min(first + count, there.first + there.number)
            if start < stop or (count == 0 and not pieces):
                pieces.append(file.get_slice(self.name)[start - there.first : max(start, stop) - there.first])
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def whole(self) -> Tensor:
        """All of it, on the CPU."""
        return self.rows(0, self.shape[0])


def own_rows(tensor: DTensor) -> Rows:
    """Which rows of a divided tensor this device holds: as many as the others, the last ones fewer or none."""
    assert tensor.placements == (Shard(0),), f"divided in another way: {tensor.placements}"
    total, devices = tensor.shape[0], tensor.device_mesh.size()
    each = -(-total // devices)
    first = min(each * tensor.device_mesh.get_local_rank(), total)
    rows = Rows(first, min(each, total - first))
    assert rows.number == tensor.to_local().shape[0]
    return rows


def take_divided(checkpoint: object) -> tuple[Any, dict[str, DTensor]]:
    """A checkpoint with references in the place of divided tensors, and these tensors by name."""
    divided: dict[str, DTensor] = {}

    def visit(part: object, place: str) -> object:
        if isinstance(part, DTensor):
            divided[place] = part
            return {_REFERENCE: place}
        if isinstance(part, Mapping):
            return {key: visit(inner, f"{place}/{key}") for key, inner in part.items()}
        if isinstance(part, list):
            return [visit(inner, f"{place}/{number}") for number, inner in enumerate(part)]
        return part

    return visit(checkpoint, ""), divided


def put_back(checkpoint: object, read: Callable[[str], object]) -> Any:
    """The opposite of `take_divided`: `read` gives what stands for a name."""
    if isinstance(checkpoint, Mapping):
        if checkpoint.keys() == {_REFERENCE}:
            return read(checkpoint[_REFERENCE])
        return {key: put_back(inner, read) for key, inner in checkpoint.items()}
    if isinstance(checkpoint, list):
        return [put_back(inner, read) for inner in checkpoint]
    return checkpoint


def write_rows(draft: Draft, divided: Mapping[str, DTensor], *, rank: int, world_size: int) -> None:
    """Write this device's rows as a safetensors file of `draft`, one tensor after another to save memory.

    Raises:
        ValueError: A tensor is of a type that is not known here.
    """
    header: dict[str, Any] = {"__metadata__": {}}
    end = 0
    for name, tensor in divided.items():
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"found {name} of type {tensor.dtype}, expected one of {list(_DTYPES)}")
        rows, local = own_rows(tensor), tensor.to_local()
        header["__metadata__"][name] = json.dumps([rows.first, tensor.shape[0]])
        start, end = end, end + local.numel() * local.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(local.shape), "data_offsets": [start, end]}
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    with draft.open(f"rows-{rank}-of-{world_size}.safetensors") as file:
        file.write(len(described).to_bytes(8, "little") + described)
        for tensor in divided.values():
            content = tensor.to_local().detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            file.write(content.numpy().data)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The divided tensors of a checkpoint by name; none if it has no such files. They must have been verified.

    Raises:
        ValueError: Rows of a tensor are missing or there twice.
    """
    parts: dict[str, list[tuple[Any, Rows]]] = {}
    totals: dict[str, int] = {}
    for path in sorted(folder.glob("rows-*-of-*.safetensors")):
        file = safe_open(path, framework="pt")
        for name, where in (file.metadata() or {}).items():
            first, totals[name] = json.loads(where)
            count = file.get_slice(name).get_shape()[0]
            if count or name not in parts:
                parts.setdefault(name, []).append((file, Rows(first, count)))
    return {name: StoredTensor(name, of_name, totals[name]) for name, of_name in parts.items()}

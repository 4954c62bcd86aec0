"""Where the host waits for the device, found without a device.

On a GPU the host waits when it reads a value (`item`, `nonzero`, a copy back) and when it sends one up from memory that
is not page-locked (`torch.tensor(1.0, device=...)`). On the CPU nothing waits, so what would lie on the device is
followed instead: the batch once it was moved, the model, what is made there, and all that is computed from these.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path

import lightning
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import theworld
from theworld.types import Batch

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
}
"""Operators whose result the host has to know."""

COPIES_BACK = {Tensor.cpu, Tensor.numpy, Tensor.tolist}
CODE = tuple(str(Path(package.__file__).parent) for package in (theworld, lightning))
"""Whose lines are named where the host waits."""


class DeviceReads(TorchDispatchMode, Callback):
    """Follows a run, as a callback of it and around it: `with reads: trainer.fit(...)`.

    Attributes:
        batches: For each micro-batch, from its first hook on, where the host would have waited.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self._training = False
        self._storages: set[StorageWeakRef] = set()
        self._uploads = _Uploads(self)

    def __enter__(self):
        self._uploads.__enter__()
        return super().__enter__()

    def __exit__(self, *details):
        super().__exit__(*details)
        self._uploads.__exit__(*details)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = any(self.is_there(leaf) for leaf in tree_leaves((args, kwargs)))
        result = func(*args, **kwargs)
        if func is aten.copy_.default and not self.is_there(args[0]) and args[2:] == (True,):
            return result  # to the host, which does not wait for it
        if there:
            if func in READS:
                self.waited(func.name())
            self.put_there(tree_leaves(result))
        return result

    def is_there(self, value: object) -> bool:
        return isinstance(value, Tensor) and StorageWeakRef(value.untyped_storage()) in self._storages

    def put_there(self, values: Iterable[object]) -> None:
        self._storages.update(StorageWeakRef(v.untyped_storage()) for v in values if isinstance(v, Tensor))

    def waited(self, what: str) -> None:
        if self._training:
            frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(CODE)]
            self.batches[-1].append(" < ".join([what, *(f"{f.filename}:{f.lineno}" for f in reversed(frames[-4:]))]))

    def on_train_batch_start(self, trainer, pl_module, batch: Batch, batch_idx):
        self._training = True
        self.batches.append([])
        self.put_there(vars(batch).values())
        self.put_there(pl_module.state_dict(keep_vars=True).values())

    def on_train_end(self, trainer, pl_module):
        self._training = False


class _Uploads(TorchFunctionMode):
    """The half that is seen before dispatch: values that are made on the device, and results copied back."""

    def __init__(self, reads: DeviceReads) -> None:
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in COPIES_BACK and self.reads.is_there(args[0]):
            self.reads.waited(func.__name__)
        if kwargs.get("device", "cpu") not in (None, "cpu"):  # the word is the host, `torch.device("cpu")` the device
            if func in (torch.tensor, torch.as_tensor):
                self.reads.waited("upload")
            self.reads.put_there([result])
        return result

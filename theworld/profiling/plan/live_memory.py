"""Which bytes of tensors are alive, and for what, at the moment of the most.

Every operation that PyTorch dispatches is seen by a mode; each storage it makes is counted until it is freed, which a
weak reference tells. It does not matter whether the tensors hold anything: a storage without content says its size.

PyTorch's own `torch.distributed._tools.MemTracker` does the same for eager modules. It cannot be used here, because it
makes `torch.compile` run nothing compiled, and what compiled layers keep for the backward pass is the question.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

CUDA_BLOCK_BYTES = 512
"""PyTorch's CUDA allocator counts multiples of this."""

WORKING = "working memory"
"""Category of what is neither kept for the backward pass nor longer: gradients on their way, parts of a layer."""


@dataclass(frozen=True)
class Peak:
    """The most that was alive in a phase.

    Attributes:
        bytes: All of it.
        categories: Bytes of each category, largest first.
        phase: When it was.
    """

    bytes: int = 0
    categories: dict[str, int] = field(default_factory=dict)
    phase: str = ""


class LiveMemory(TorchDispatchMode):
    """Counts while it is entered.

    Args:
        block_bytes: A storage takes a multiple of this.

    Attributes:
        category: What storages made from now on are for.
        phase: What is being done, for the peaks.
        live_bytes: Of all storages alive now.
    """

    def __init__(self, *, block_bytes: int = CUDA_BLOCK_BYTES) -> None:
        super().__init__()
        self.category = WORKING
        self.phase = ""
        self.live_bytes = 0
        self._most: dict[str, tuple[int, dict[str, int]]] = {}
        self._block_bytes = block_bytes
        self._by_category: dict[str, int] = defaultdict(int)
        self._known: dict[int, tuple[int, str]] = {}

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Compile as if nothing was watching; PyTorch leaves functions uncompiled under other modes."""
        return True

    @property
    def peaks(self) -> dict[str, Peak]:
        """The most of each phase since `reset`."""
        return {phase: Peak(size, _largest_first(parts), phase) for phase, (size, parts) in self._most.items()}

    @property
    def peak(self) -> Peak:
        """The most of all phases."""
        return max(self.peaks.values(), key=lambda peak: peak.bytes, default=Peak())

    def reset(self) -> None:
        """Forget the peaks."""
        self._most = {}

    def rounded(self, size: int) -> int:
        """`size` in whole blocks."""
        return -(-size // self._block_bytes) * self._block_bytes

    def hold(self, tensor: Tensor, category: str | None = None) -> None:
        """Count the storage of a tensor that is there already, once, until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            size, category = self.rounded(storage.nbytes()), category or self.category
            self._known[key] = size, category
            weakref.finalize(storage, self._freed, key)
            self.take(size, category)

    def rename(self, tensor: Tensor, category: str) -> None:
        """Say what a counted tensor turned out to be for."""
        self.hold(tensor, category)
        key = tensor.untyped_storage()._cdata
        size, before = self._known[key]
        self._by_category[before] -= size
        self._by_category[category] += size
        self._known[key] = size, category

    def take(self, size: int, category: str = WORKING) -> None:
        """Count bytes that no tensor stands for; `give` takes them off again."""
        self.live_bytes += size
        self._by_category[category] += size
        if size > 0 and self.live_bytes > self._most.get(self.phase, (0, {}))[0]:
            self._most[self.phase] = self.live_bytes, dict(self._by_category)

    def give(self, size: int, category: str = WORKING) -> None:
        """The opposite of `take`."""
        self.live_bytes -= size
        self._by_category[category] -= size

    @contextmanager
    def during(self, phase: str, category: str) -> Iterator[None]:
        """Name what happens inside."""
        before = self.phase, self.category
        self.phase, self.category = phase, category
        yield
        self.phase, self.category = before

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch._guards.TracingContext.try_get() is None:  # else a layer is being compiled, and nothing is computed
            for tensor in plain_tensors(result):
                if tensor.device.type != "meta":
                    self.hold(tensor)
        return result

    def _freed(self, key: int) -> None:
        self.give(*self._known.pop(key))


def _largest_first(parts: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in sorted(parts.items(), key=lambda item: -item[1]) if size}


def plain_tensors(value: object) -> Iterator[Tensor]:
    """The tensors in a value; of a subclass that only wraps others (8-bit moments) those, which hold its bytes."""
    for one in tree_iter(value):
        if isinstance(one, Tensor):
            flatten: Callable[[], tuple[list[str], object]] | None = getattr(one, "__tensor_flatten__", None)
            yield from [one] if flatten is None else (getattr(one, name) for name in flatten()[0])

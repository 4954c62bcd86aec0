"""Compiled layers that compute nothing: a backend of `torch.compile` whose graphs take and free memory as theirs would.

Up to the graph everything is PyTorch's own: Dynamo, autograd ahead of time, Inductor's decompositions and joint passes,
and the partitioner that decides what a layer keeps for its backward pass. Only the code is never generated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.compile_fx import _recursive_joint_graph_passes
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node

from theworld.profiling.plan.graph_buffers import Kernel, buffer, graph_buffers
from theworld.profiling.plan.live_memory import CUDA_BLOCK_BYTES, WORKING, LiveMemory

_VERSIONS = 4096
"""Compiled versions of a layer that a search may have: some for every shape of row that it looks at."""


class MemoryOnly:
    """The backend. One is kept for all steps, so that layers of the same shapes are compiled once.

    Args:
        mode: Makes the tensors that the graphs return.

    Attributes:
        memory: Where they are counted; set for each step.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        self.mode = mode
        self.memory: LiveMemory | None = None
        self.compile = aot_autograd(
            fw_compiler=self._graph,
            bw_compiler=self._graph,
            inference_compiler=self._graph,
            decompositions=select_decomp_table(),
            partition_fn=_partition,
        )

    @contextmanager
    def counting(self, memory: LiveMemory) -> Iterator[None]:
        """Let every `torch.compile` inside use this backend, and count in `memory`."""
        self.memory = memory
        # Another version than the compiled one would run the layer as it is written, and count what it never keeps.
        with (
            torch.compiler.set_stance("default", force_backend=self.compile),
            torch._dynamo.config.patch(
                fail_on_recompile_limit_hit=True, recompile_limit=_VERSIONS, accumulated_recompile_limit=_VERSIONS
            ),
        ):
            yield
        self.memory = None

    def _graph(self, graph: GraphModule, example_inputs: object) -> Callable[..., Any]:
        return _MemoryOfGraph(graph, self)


def _partition(graph: GraphModule, inputs: object, **options: Any) -> tuple[GraphModule, GraphModule]:
    """As Inductor does it."""
    _recursive_joint_graph_passes(graph)
    return min_cut_rematerialization_partition(graph, inputs, compiler="inductor", **options)


class _MemoryOfGraph:
    """Called as the compiled graph would be: takes its inputs in a list, and lets go of each when it is read."""

    def __init__(self, graph: GraphModule, backend: MemoryOnly) -> None:
        self._boxed_call = True  # the caller keeps no reference to what is in the list; looked for on the instance
        self._backend = backend
        self._buffers = graph_buffers(graph, rounded_to=CUDA_BLOCK_BYTES)

    def __call__(self, given: list[Any]) -> list[Any]:
        memory, buffers = self._backend.memory, self._buffers
        assert memory is not None, "the graph runs inside `counting`"
        inputs = dict(zip(buffers.inputs, given, strict=True))
        given.clear()
        kept = {node: value for node, value in inputs.items() if node in buffers.returned}
        for node in buffers.unread:
            del inputs[node]
        taken: dict[Node, int] = {}
        for kernel in buffers.kernels:
            self._run(kernel, memory, taken, kept)
            for node in kernel.frees:
                inputs.pop(node, None)
                memory.give(taken.pop(node, 0))
        assert not taken, f"found {list(taken)} still taken at the end of a graph"
        return [self._returned(value, kept) for value in buffers.returns]

    def _run(self, kernel: Kernel, memory: LiveMemory, taken: dict[Node, int], kept: dict[Node, Any]) -> None:
        if kernel.writes_over is not None:
            memory.give(taken.pop(kernel.writes_over))
        for node, size in kernel.makes:
            if node in self._buffers.returned:
                kept[node] = self._empty(node.meta["val"])
                memory.hold(kept[node])
            else:
                memory.take(size)
                taken[node] = size
        memory.take(kernel.workspace)
        memory.give(kernel.workspace, WORKING)

    def _returned(self, value: object, kept: dict[Node, Any]) -> object:
        if not isinstance(value, Node):
            return value
        owner = kept[buffer(value)]
        if buffer(value) is value:
            return owner
        shape = value.meta["val"]
        return owner.as_strided(shape.size(), shape.stride(), shape.storage_offset())

    def _empty(self, like: Tensor) -> Tensor:
        with self._backend.mode:
            return torch.empty_strided(like.size(), like.stride(), dtype=like.dtype, device=like.device)

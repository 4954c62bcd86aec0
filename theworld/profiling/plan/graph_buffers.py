"""Which buffers a compiled graph makes, in order, and when each of them is free again.

Inductor makes one kernel of neighbouring element-wise operations, so most values of a graph never lie in memory. What
does is decided there by many rules; here by these:

- what a call of its own (a matrix product, a convolution, attention) reads and gives, what a reduction gives, and what
  the graph returns lie in memory;
- everything else is computed inside the kernels that need it, as often as they do;
- a kernel may write over one buffer that it reads, if nothing needs that one later.

A buffer is the storage of a node; views of it are the same buffer.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from theworld.profiling.plan.kernel_workspaces import workspace_bytes

_CALLS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward", "sort", "nonzero_static"}
_CALLS |= {"embedding_dense_backward"}
_REDUCTIONS = {"sum", "mean", "var", "var_mean", "amax", "amin", "prod", "native_layer_norm", "linalg_vector_norm"}
_SAME_STORAGE = {"_unsafe_view", "copy_"}


@dataclass(frozen=True)
class Kernel:
    """One call or fused kernel.

    Attributes:
        makes: Buffers, and the bytes of each.
        frees: Buffers that nothing needs afterwards.
        writes_over: One of `frees` that the first of `makes` lies in; its bytes are the same.
        workspace: Bytes that it needs while it runs.
    """

    makes: tuple[tuple[Node, int], ...]
    frees: tuple[Node, ...]
    writes_over: Node | None
    workspace: int


@dataclass(frozen=True)
class GraphBuffers:
    """The whole graph.

    Attributes:
        inputs: Its placeholders, in order.
        kernels: In the order in which they run.
        returns: For each value that it returns the node, or a constant.
        returned: Buffers of these.
        unread: Inputs that no kernel reads.
    """

    inputs: tuple[Node, ...]
    kernels: tuple[Kernel, ...]
    returns: tuple[object, ...]
    returned: frozenset[Node]
    unread: frozenset[Node]


def buffer(node: Node) -> Node:
    """The node whose storage `node` lies in: itself, unless it is a view."""
    while node.op == "call_function":
        if node.target is operator.getitem:
            source = node.args[0]
            if not (isinstance(source, Node) and _is_view(source)):
                return node
            node = source
        if not (_is_view(node) or _name(node) in _SAME_STORAGE):
            return node
        (node,) = node.all_input_nodes[:1]
    return node


def graph_buffers(graph: GraphModule, *, rounded_to: int) -> GraphBuffers:
    """Buffers of a graph whose nodes say in `meta` what they give.

    Args:
        graph: Forward or backward pass, as PyTorch's partitioner leaves it.
        rounded_to: Buffers take multiples of so many bytes.
    """
    nodes = list(graph.graph.nodes)
    values = tuple(nodes[-1].args[0])
    returned = frozenset(buffer(value) for value in values if isinstance(value, Node))
    in_memory = _in_memory(nodes) | returned
    reads = _Reads(in_memory)
    made_by = [(node, made) for node in nodes if (made := _made(node, in_memory)) is not None]
    last: dict[Node, int] = {}
    for number, (node, made) in enumerate(made_by):
        last |= dict.fromkeys([*reads.of_all(node.all_input_nodes), *made], number)
    for value in returned:
        last.pop(value, None)
    frees: dict[int, list[Node]] = defaultdict(list)
    for node, number in last.items():
        frees[number].append(node)

    def size(node: Node) -> int:
        return -(-node.meta["val"].untyped_storage().nbytes() // rounded_to) * rounded_to

    inputs = tuple(node for node in nodes if node.op == "placeholder")
    kernels = [_kernel(node, made, frees[number], size) for number, (node, made) in enumerate(made_by)]
    unread = frozenset(inputs) - set(last) - returned
    return GraphBuffers(inputs, tuple(kernels), values, returned, unread)


def _kernel(node: Node, made: Sequence[Node], frees: Sequence[Node], size: Callable[[Node], int]) -> Kernel:
    makes = tuple((one, size(one)) for one in made)
    over = None
    if makes and not _is_call(node):  # calls do not write over what they read
        own = [n for n in frees if n.op == "call_function" and n not in made]
        over = next((n for n in own if size(n) == makes[0][1]), None)
    return Kernel(makes, tuple(n for n in frees if n is not over), over, workspace_bytes(node))


class _Reads:
    """Which buffers are read to compute a node, through values that lie in none."""

    def __init__(self, in_memory: frozenset[Node]) -> None:
        self._in_memory = in_memory
        self._found: dict[Node, frozenset[Node]] = {}

    def of(self, node: Node) -> frozenset[Node]:
        node = buffer(node)
        if node not in self._found:
            own = node.op == "placeholder" or node in self._in_memory
            self._found[node] = frozenset({node}) if own else self.of_all(node.all_input_nodes)
        return self._found[node]

    def of_all(self, nodes: Iterable[Node]) -> frozenset[Node]:
        return frozenset[Node]().union(*(self.of(node) for node in nodes))


def _in_memory(nodes: Sequence[Node]) -> frozenset[Node]:
    found: set[Node] = set()
    for node in nodes:
        if _is_call(node):
            found.update(buffer(read) for read in node.all_input_nodes)
        if _is_call(node) or _is_reduction(node):
            found.update(_results(node))
    return frozenset(node for node in found if node.op == "call_function" and isinstance(node.meta.get("val"), Tensor))


def _results(node: Node) -> list[Node]:
    if isinstance(node.meta.get("val"), Tensor):
        return [buffer(node)]
    return [user for user in node.users if user.target is operator.getitem]


def _made(node: Node, in_memory: frozenset[Node]) -> list[Node] | None:
    """Buffers that the kernel of `node` makes; None if it has no kernel of its own."""
    if _is_call(node) or _is_reduction(node):
        return [one for one in _results(node) if one in in_memory and one.op == "call_function"]
    if _name(node) == "copy_":
        return []
    return [node] if node in in_memory and node.op == "call_function" and node.target is not operator.getitem else None


def _is_call(node: Node) -> bool:
    """Whether it is a call of its own: a product, or an operator that the compiler does not see into."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    space = node.target._schema.name.split("::")[0]
    name = _name(node)
    return space not in ("aten", "prims") or name in _CALLS or "dot_product" in name or "flash_attention" in name


def _is_reduction(node: Node) -> bool:
    return _name(node) in _REDUCTIONS


def _is_view(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target.is_view


def _name(node: Node) -> str:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return node.target._schema.name.split("::")[1]

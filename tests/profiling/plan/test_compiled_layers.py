"""A compiled layer keeps what PyTorch's partitioner keeps, and its graphs take and free what their kernels would."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from theworld.profiling.plan.compiled_layers import MemoryOnly
from theworld.profiling.plan.live_memory import LiveMemory

ROWS, WIDTH, INNER = 32, 64, 256
NARROW, WIDE = ROWS * WIDTH * 4, ROWS * INNER * 4
"""Bytes of a row of each width; multiples of a block."""


def block(first: Tensor, second: Tensor, inputs: Tensor) -> Tensor:
    return inputs + F.gelu(inputs @ first) @ second


@pytest.fixture(scope="module")
def mode() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


class Run(NamedTuple):
    """Bytes beside weights and inputs: kept between the passes, and the most of each pass."""

    kept: int
    forward: int
    backward: int
    held: list[Tensor]


def run(mode: FakeTensorMode, function: Callable[..., Tensor], *, trains: bool) -> Run:
    """Forward and backward pass of `function`."""
    with mode:
        weights = [nn.Parameter(torch.empty(shape), requires_grad=trains) for shape in ((WIDTH, INNER), (INNER, WIDTH))]
        inputs = torch.empty(ROWS, WIDTH, requires_grad=True)
    memory, backend = LiveMemory(), MemoryOnly(mode)
    with backend.counting(memory), memory:
        held = [*weights, inputs]
        for tensor in held:
            memory.hold(tensor)
        there = memory.live_bytes
        compiled = torch.compile(partial(function, *weights), dynamic=False)
        with memory.during("forward", "kept"):
            result = compiled(inputs)
        kept = memory.live_bytes - there
        with memory.during("backward", "gradients"):
            result.backward(torch.ones_like(result))
    return Run(kept, *(memory.peaks[phase].bytes - there for phase in ("forward", "backward")), held)


def test_kept_and_working_memory_of_a_frozen_block(mode) -> None:
    found = run(mode, block, trains=False)
    assert found.kept == WIDE + NARROW  # what goes into the activation, and the result
    assert found.forward == found.kept + WIDE  # the activation, made again later; the sum lies where the product did
    assert found.backward == found.kept + NARROW + WIDE  # the gradient that comes in, and that of the activation
    assert found.held[-1].grad is not None
    assert found.held[-1].grad.shape == (ROWS, WIDTH)


def test_a_block_that_runs_twice_keeps_its_result_only(mode) -> None:
    found = run(mode, partial(checkpoint, block, use_reentrant=False), trains=False)
    assert found.kept == NARROW
    assert found.backward >= NARROW + 2 * WIDE


def test_gradients_of_weights_are_there_at_the_end(mode) -> None:
    found = run(mode, block, trains=True)
    assert found.kept == 2 * WIDE + NARROW  # the activation, too: what a product of the backward pass reads
    assert all(tensor.grad is not None and tensor.grad.shape == tensor.shape for tensor in found.held)
    assert found.backward >= sum(tensor.nbytes for tensor in found.held)


def test_written_as_it_is_a_block_keeps_more(mode) -> None:
    """The control: without the compiler the activation is kept beside what goes into it."""
    with mode:
        first, second = torch.empty(WIDTH, INNER), torch.empty(INNER, WIDTH)
        inputs = torch.empty(ROWS, WIDTH, requires_grad=True)
    with LiveMemory() as memory:
        result = block(first.requires_grad_(), second.requires_grad_(), inputs)
    assert memory.live_bytes == 2 * WIDE + NARROW
    assert result.requires_grad


def test_graphs_run_only_where_they_are_counted(mode) -> None:
    backend = MemoryOnly(mode)
    with mode:
        inputs = torch.empty(4, 4)
    with backend.counting(LiveMemory()):
        compiled = torch.compile(lambda x: x @ x, dynamic=False, backend=backend.compile)
        assert compiled(inputs).shape == (4, 4)
    with pytest.raises(AssertionError, match="runs inside `counting`"):
        compiled(inputs)

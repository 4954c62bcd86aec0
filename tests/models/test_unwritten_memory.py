"""No step reads memory that nobody wrote: with NaN in all of it, gradients are those of the reference.

A read of that kind gives a right loss and, now and then, wrong gradients, which no comparison on fresh memory finds.
Kernels of a GPU are not reached here; what compiled ones did read is in `test_read_back.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch._C._dynamo.guards as guards
from torch import Tensor

from tests.models.conftest import make_sample, packed
from tests.tiny import inputs, make_model
from theworld.models.execution import set_execution
from theworld.models.live_rows import with_live_rows
from theworld.models.theworld import TheWorld


@pytest.fixture
def filled(monkeypatch) -> Iterator[list[Tensor]]:
    """NaN in what PyTorch and compiled code allocate; the tensors of the latter."""
    made: list[Tensor] = []
    empty = guards._empty_strided_cpu

    def poisoned(size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        made.append(empty(size, stride, dtype))
        return made[-1].fill_(float("nan")) if dtype.is_floating_point else made[-1].fill_(1)

    monkeypatch.setattr(guards, "_empty_strided_cpu", poisoned)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch._dynamo.reset()
    yield made
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()


def gradients(model: TheWorld, backend: str) -> dict[str, Tensor]:
    """Of a packed row of two samples, with the rows that no target needs left out."""
    model.attention_backend = backend
    model.zero_grad(set_to_none=True)
    samples = [make_sample(name, text=14 + i, answer=4, seed=i) for i, name in enumerate("ab")]
    batch = with_live_rows(packed(samples, 96), model.config)
    model(**inputs(batch, labels=True), live_rows=batch.live_rows).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_are_those_of_the_reference(filled, compiled):
    model = make_model().train()
    set_execution(model, compiled=False, recompute="none")
    reference = gradients(model, "sdpa")
    set_execution(model, compiled=compiled, recompute="none")
    for _ in range(2):
        found = gradients(model, "flash")
        assert found.keys() == reference.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(
                gradient, reference[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    assert bool(filled) == compiled


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_read_would_be_seen(filled, compiled):
    """Control: half of a tensor is written, all of it read."""

    def half(x: Tensor) -> Tensor:
        made = torch.empty(4)
        made[:2] = x
        return made.sum()

    run = torch.compile(half) if compiled else half
    assert torch.isnan(run(torch.ones(2)))

"""Inductor's Triton code; neither Triton nor a GPU is needed to write it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.utils._triton
from torch import Tensor
from torch._inductor import config as inductor
from torch._inductor.graph import GraphLowering


def two_norms(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """bfloat16[B, D] ×2, float32[D] → y + norm(x), and that normalised, twice: both read the first sum back."""
    hidden = y + (norm(x) * weight).bfloat16()
    return hidden, norm(hidden).bfloat16(), norm(hidden) * weight


def norm(x: Tensor) -> Tensor:
    return x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)


class Written(Exception):
    """Ends a compilation with the code that it would run."""


def written(monkeypatch, *, width: int = 2560) -> str:
    """Inductor's Triton code of `two_norms`."""
    x, y = torch.zeros(2, 64, width, dtype=torch.bfloat16)
    compiled = torch.compile(two_norms, dynamic=False)
    return first_code(monkeypatch, lambda: compiled(x, y, torch.zeros(width)))


def first_code(monkeypatch, run: Callable[[], object]) -> str:
    """Inductor's Triton code of the first thing that `run` compiles, padded as for a GPU."""

    def stop(graph: GraphLowering) -> None:
        raise Written(graph.codegen()[0].value)

    monkeypatch.setattr(GraphLowering, "compile_to_module", stop)
    monkeypatch.setattr(torch.utils._triton, "triton_hash_with_backend", lambda: "no Triton here")
    with (
        inductor.patch(cpu_backend="triton", disable_padding_cpu=False, force_disable_caches=True),
        pytest.raises(torch._inductor.exc.InductorError) as caught,
    ):
        run()
    assert isinstance(caught.value.inner_exception, Written)
    return str(caught.value.inner_exception)

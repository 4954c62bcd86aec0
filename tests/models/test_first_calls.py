"""What was compiled while the program runs is compared with PyTorch's kernels at the start of a run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from theworld.models.attention import flash4, varlen
from theworld.models.attention.first_calls import CALLS, TOLERANCE, FirstCalls, relative_difference


def right() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, generator=generator), torch.randn(2, 7, generator=generator)


def test_the_same_to_rounding_passes():
    output, lse = right()
    FirstCalls("x").check((output.bfloat16(), lse), right)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("factor", [1 + 1.1 * TOLERANCE, -1.0, 0.0, 1e5, float("nan"), float("inf")])
def test_anything_else_stops_the_run(number: int, factor: float):
    found = list(right())
    found[number] = found[number] * factor
    with pytest.raises(RuntimeError, match=rf"found result {number} of the backward pass.*compiled wrongly here"):
        FirstCalls("the backward pass").check(tuple(found), right)


def test_one_wrong_element_among_many_zeros_stops_the_run():
    zeros = torch.zeros(1000)
    with pytest.raises(RuntimeError, match="inf from that of"):
        FirstCalls("x").check((torch.eye(1000)[0] * 1e-6,), lambda: (zeros,))


def test_only_the_first_calls_are_computed_twice():
    first, computed = FirstCalls("x"), []
    for _ in range(CALLS + 3):
        first.check(right(), lambda: computed.append(0) or right())
    assert len(computed) == CALLS


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([float("-inf"), 4.4], [float("-inf"), 4.0], 0.1),
        ([float("-inf"), 4.4], [float("inf"), 4.0], 0.1),
        ([float("nan")], [float("inf")], float("nan")),
        ([float("inf"), 4.0], [3.0, 4.0], float("inf")),
        ([0.0], [0.0], 0.0),
        ([], [], 0.0),
        ([1.0], [float("-inf")], float("inf")),
    ],
)
def test_the_difference_by_hand(found: list[float], expected: list[float], difference: float):
    measured = relative_difference(torch.tensor(found), torch.tensor(expected))
    assert measured == pytest.approx(difference, abs=1e-7, nan_ok=True)


@pytest.mark.gpu
def test_a_wrong_gradient_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch):
    from tests.models.test_attention_cuda import test_outputs_and_gradients

    monkeypatch.setattr(varlen, "_BACKWARD", FirstCalls("the backward pass"))
    real = flash4.backward
    monkeypatch.setattr(flash4, "backward", lambda *inputs: tuple(2 * part for part in real(*inputs)))
    with pytest.raises(RuntimeError, match="of the backward pass"):
        test_outputs_and_gradients("flash4", "no image", None)

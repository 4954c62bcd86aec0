"""AdamW by one kernel, on a GPU: torchao's formula, and rounding that is right on average."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytestmark = pytest.mark.gpu

SETTINGS = {"step": 3.0, "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.1, "eps": 1e-8}
SIZES = {"aligned": [(64, 160), (16,), (8192,), (3, 8192)], "odd": [(5,), (64, 161), (9001,), (1,)]}


def tensors(sizes: list[tuple[int, ...]]) -> tuple[list[Tensor], ...]:
    """Weights, gradients, means, squares."""
    random = torch.Generator("cuda").manual_seed(0)

    def draw(scale: float) -> list[Tensor]:
        return [(scale * torch.randn(size, generator=random, device="cuda")).bfloat16() for size in sizes]

    return draw(1.0), draw(1.0), draw(0.1), [square.abs() for square in draw(0.01)]


def torchao_step(weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The new weight in float32, and the new moments: torchao's own function, not rounded at random."""
    from torchao.optim.adam import single_param_adam

    whole, mean, square = weight.float(), mean.clone(), square.clone()
    step, lr, rest = torch.tensor(3.0), torch.tensor(1e-3), (0.9, 0.999, 0.1, 1e-8)
    single_param_adam(whole, gradient, step, mean, square, None, lr, *rest, True, False)
    return whole, mean, square


def neighbours(whole: Tensor) -> tuple[Tensor, Tensor]:
    """The bfloat16 numbers towards zero and away from it, in float32."""
    towards = whole.view(torch.int32) & -65536
    return towards.view(torch.float32), (towards + 65536).view(torch.float32)


@pytest.mark.parametrize("kind", SIZES)
def test_the_formula_is_torchaos(kind):
    """A last bit may differ, since a compiler contracts products and sums in another way."""
    from theworld.training.stochastic_kernel import update

    weights, gradients, means, squares = tensors(SIZES[kind])
    expected = [torchao_step(*four) for four in zip(weights, gradients, means, squares, strict=True)]
    before = [weight.clone() for weight in weights]
    update(weights, gradients, means, squares, seed=1, **SETTINGS)
    assert not torch.equal(weights[1], before[1])
    for *found, (whole, mean, square) in zip(weights, means, squares, expected, strict=True):
        low, high = neighbours(whole)
        assert ((found[0].float() - whole).abs() <= (high - low).abs() * (1 + 1e-3)).all()
        for moment, wanted in zip(found[1:], (mean, square), strict=True):
            assert (moment == wanted).float().mean() > 0.99
            torch.testing.assert_close(moment, wanted, rtol=2**-7, atol=0)


def test_rounding_is_right_on_average():
    """Over 400 seeds the mean is the float32 weight: 16 bits an element, no two of which are the same."""
    from theworld.training.stochastic_kernel import update

    sizes = [(4, 8192), (8208,)]
    fresh = tensors(sizes)
    expected = [torchao_step(*four)[0] for four in zip(*fresh, strict=True)]
    sums = [torch.zeros_like(whole) for whole in expected]
    for seed in range(400):
        weights, gradients, means, squares = ([t.clone() for t in kind] for kind in fresh)
        update(weights, gradients, means, squares, seed=seed, **SETTINGS)
        for total, weight in zip(sums, weights, strict=True):
            total += weight.float()
    for total, whole in zip(sums, expected, strict=True):
        low, high = neighbours(whole)
        gap = (high - low).abs()
        fraction = (whole - low).abs() / gap
        error = (total / 400 - whole) / gap * (400 / (fraction * (1 - fraction)).clamp(min=0.01)).sqrt()
        assert abs(error.mean()) < 5 / error.numel() ** 0.5
        middle = error[(fraction > 0.05) & (fraction < 0.95)]
        assert middle.std().item() == pytest.approx(1.0, abs=0.05)  # as of draws that do not depend on each other
        parts = error.flatten()[: 8 * 1024].view(8, 1024)  # the eight parts that share calls of the generator
        assert (torch.corrcoef(parts) - torch.eye(8, device="cuda")).abs().max() < 0.2


def test_a_seed_is_a_rounding():
    from theworld.training.stochastic_kernel import update

    made = []
    for seed in (7, 7, 8):
        weights, *rest = tensors([(64, 160)])
        update(weights, *rest, seed=seed, **SETTINGS)
        made.append(weights[0])
    assert torch.equal(made[0], made[1])
    whole = torchao_step(*(kind[0] for kind in tensors([(64, 160)])))[0]
    low, high = neighbours(whole)
    up = (whole - low) / (high - low)  # the odds of rounding away from zero
    assert (made[0] != made[2]).float().mean().item() == pytest.approx((2 * up * (1 - up)).mean().item(), abs=0.02)


def test_not_a_number_stays_one():
    """CUDA's own has all bits set, so that a carry would make it a zero."""
    from theworld.training.stochastic_kernel import update

    four = tensors([(32,)])
    four[1][0][:] = float("nan")
    four[1][0].view(torch.int16)[16:] = 0x7FFF
    update(*four, seed=1, **SETTINGS)
    assert torch.isnan(four[0][0]).all()


def test_the_optimizer_takes_it_for_what_it_can(monkeypatch):
    """bfloat16 without gaps is one call without waiting for the device; float32 and a strided weight are torchao's."""
    from theworld.training import low_precision_adamw, stochastic_kernel

    calls: list[tuple[str, int]] = []
    kernel, compiled = stochastic_kernel.update, low_precision_adamw._together
    monkeypatch.setattr(
        stochastic_kernel, "update", lambda p, *rest, **s: (calls.append(("ours", len(p))), kernel(p, *rest, **s))
    )
    monkeypatch.setattr(
        low_precision_adamw, "_compiled", lambda p, *rest: (calls.append(("torchao", len(p))), compiled(p, *rest))
    )
    plain = [nn.Parameter(torch.ones(32, 16, device="cuda", dtype=torch.bfloat16)) for _ in range(3)]
    strided = nn.Parameter(torch.ones(16, 32, device="cuda", dtype=torch.bfloat16).t())
    whole = nn.Parameter(torch.ones(16, device="cuda"))
    named = [(f"tower.layers.{n}.w", parameter) for n, parameter in enumerate([*plain, strided, whole])]
    optimizer = low_precision_adamw.LayerwiseAdamW([{"params": named, "lr": 0.1}], bf16_stochastic_round=True)
    for _, parameter in named:
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    assert sorted(calls) == [("ours", 3), ("torchao", 1), ("torchao", 1)]
    for _, parameter in named:
        assert optimizer.state[parameter]["step"].item() == 1
        torch.testing.assert_close(parameter.float(), torch.full_like(parameter.float(), 0.9), rtol=0, atol=2**-8)
    for _, parameter in named[3:]:
        parameter.grad = None
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert calls[-1] == ("ours", 3)

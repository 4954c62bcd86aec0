"""torchao's AdamW stepped a layer at a time: the same numbers, and one call a layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchao.optim.subclass_8bit import OptimState8bit

from theworld.training import low_precision_adamw


@pytest.fixture(autouse=True)
def not_compiled():
    """Compiled code takes seconds a shape; the same code runs here as it is written."""
    with torch.compiler.set_stance("force_eager"):
        yield


KINDS = {
    "adamw_bf16": low_precision_adamw.LayerwiseAdamW,
    "adamw_8bit": low_precision_adamw.LayerwiseAdamW8bit,
}


def layers() -> list[tuple[str, nn.Parameter]]:
    """Two layers of a tower, and two parameters outside of it."""
    rows = {
        "tower.layers.0.a": 64,
        "tower.layers.0.b": 3,
        "tower.layers.1.a": 64,
        "tower.layers.1.b": 3,
        "n": 5,
        "e": 2,
    }
    return [(name, nn.Parameter(torch.linspace(-2, 2, n * 64).view(n, 64).bfloat16())) for name, n in rows.items()]


@pytest.mark.parametrize("choice", KINDS)
def test_a_step_is_torchaos_own(choice):
    """Weights and moments after three steps, without rounding at random; two layers, a parameter without gradient."""
    ours, theirs = (layers() for _ in range(2))
    optimizers = []
    for parameters, kind in ((ours, KINDS[choice]), (theirs, KINDS[choice].__mro__[2])):
        group = {"params": parameters, "lr": 0.0, "weight_decay": 0.1}
        optimizers.append(kind([group], bf16_stochastic_round=False))
    for step in range(1, 4):
        for _, parameter in (*ours[:-1], *theirs[:-1]):
            pull = torch.linspace(-1, 1, parameter.numel()) / step
            parameter.grad = pull.view_as(parameter).to(parameter.dtype)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = torch.tensor(0.01 * step)
            optimizer.step()
    assert len(optimizers[0].state) == len(optimizers[1].state) == len(ours) - 1
    for (name, mine), (_, other) in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other), name
        assert not torch.equal(mine, dict(layers())[name]) or mine.grad is None
        for key, value in optimizers[1].state.get(other, {}).items():
            found = optimizers[0].state[mine][key]
            assert torch.equal(*(x.dequantize() if isinstance(x, OptimState8bit) else x for x in (found, value))), key


def test_a_layer_is_one_call(monkeypatch):
    """What the host pays for is calls; parameters that have made another number of steps need one of their own."""
    calls = []
    monkeypatch.setattr(low_precision_adamw, "_compiled", lambda parameters, *_: calls.append(len(parameters)))
    parameters = layers()
    optimizer = KINDS["adamw_bf16"]([{"params": parameters, "lr": 0.0}], bf16_stochastic_round=True)
    for _, parameter in parameters[:-2]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert calls == [2, 2]
    calls.clear()
    norm = nn.Parameter(torch.ones(3).bfloat16())
    optimizer.add_param_group({"params": [("tower.layers.0.norm", norm)], "lr": 0.0})
    optimizer.state[norm] = {key: value.clone() for key, value in optimizer.state[parameters[0][1]].items()}
    norm.grad = torch.zeros_like(norm)
    optimizer.step()
    assert calls == [3, 2]  # of another group, but with the same settings
    optimizer.param_groups[1]["weight_decay"] = 0.5
    calls.clear()
    optimizer.step()
    assert calls == [2, 2, 1]
    norm.grad = None
    for _, parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    calls.clear()
    optimizer.step()
    assert calls == [2, 2, 2]
    calls.clear()
    optimizer.state[parameters[0][1]]["step"] += 1
    optimizer.step()
    assert calls == [1, 1, 2, 2]


def test_the_kernels_seed_follows_from_step_and_call():
    """Under `rounding_of_step` it is the same on every rank, whatever was drawn before, and another in each step."""
    seeds = set()
    for step in range(100):
        torch.manual_seed(step)
        torch.rand(step)
        found = {low_precision_adamw._seed(step, call) for call in range(3)}
        torch.manual_seed(step)
        assert found == {low_precision_adamw._seed(float(step), call) for call in range(3)}
        seeds |= found
    assert len(seeds) == 300
    assert len({low_precision_adamw._seed(float(step), 0) for step in range(100)}) == 100  # of one generator's seed
    assert all(0 <= seed < 2**31 for seed in seeds)

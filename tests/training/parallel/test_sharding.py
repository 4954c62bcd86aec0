"""A divided model gives the gradient of a whole one, also where the devices' rows need different parts of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.training.parallel.uneven_rows import MAX_NORM, model, pass_once, row_of
from tests.training.ranks import Ranks
from theworld.training.parallel.clipping import clip, clip_by_norm


def test_a_row_without_image_beside_one_with(tmp_path, monkeypatch):
    Ranks(pass_once, world_size=2, folder=tmp_path).wait(60)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    expected = model()
    sum(expected(**row_of(rank)).loss_sum for rank in range(2)).backward()
    with_gradient = {n: p for n, p in expected.named_parameters() if p.grad is not None}
    assert any("vision_tower" in name for name in with_gradient)
    norm = nn.utils.clip_grad_norm_(list(with_gradient.values()), MAX_NORM)
    assert norm > 2 * MAX_NORM
    for rank in range(2):
        found = torch.load(tmp_path / f"rank-{rank}.pt")
        assert float(found["norm"]) == pytest.approx(float(norm), rel=1e-12)
        assert found["gradients"].keys() == with_gradient.keys()
        for name, parameter in with_gradient.items():
            torch.testing.assert_close(found["gradients"][name], parameter.grad, rtol=1e-11, atol=1e-13, msg=name)


@pytest.mark.parametrize("max_norm", [0.1, 100.0])
def test_clipping_by_norm_is_pytorchs(max_norm):
    torch.manual_seed(0)
    here, there = ([nn.Parameter(torch.zeros(3, n)) for n in (1, 5)] for _ in range(2))
    for one, other in zip(here, there, strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    frozen = nn.Parameter(torch.zeros(2))
    assert torch.equal(clip_by_norm([*here, frozen], max_norm), nn.utils.clip_grad_norm_(there, max_norm))
    assert frozen.grad is None
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.grad, other.grad)


def test_clipping_by_value_and_none():
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([-3.0, 0.5, 2.0])
    clip([parameter], None)
    clip([parameter], 0.0)
    assert parameter.grad.tolist() == [-3.0, 0.5, 2.0]
    clip([parameter], 1.0, by_value=True)
    assert parameter.grad.tolist() == [-1.0, 0.5, 1.0]

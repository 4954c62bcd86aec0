"""What the scripts of `experiments/speed` say of a profile and of a baseline's model."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import nn
from torch.autograd import DeviceType

from tests.tiny import make_model
from theworld.models.patch_embedding import PatchConv2d
from theworld.models.world_encoder import FrameConv3d


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    for folder in ("scaling", "speed"):
        monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments" / folder)
    yield
    for name in ("baselines", "clock", "exposed", "kernel_times", "rows", "step"):
        sys.modules.pop(name, None)


def event(name: str, start: float, end: float, device: DeviceType = DeviceType.CUDA) -> SimpleNamespace:
    span = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(name=name, device_type=device, time_range=span, device_time_total=end - start)


def test_what_kernels_share_is_busy_once_and_what_lies_between_them_is_idle():
    from kernel_times import PROFILED, Phases

    events = [
        event("product", 0, 3000),
        event("norm", 2000, 6000),  # beside it for a while
        event("norm", 9000, 12000),
        event("launch", 0, 50_000, DeviceType.CPU),
    ]
    phases = Phases(steps=1)
    phases.profiler = SimpleNamespace(events=lambda: events)
    assert phases.busy_and_idle() == pytest.approx((9 / PROFILED, 3 / PROFILED))
    assert {name: time for name, (time, _) in phases.kernels().items()} == pytest.approx(
        {"norm": 7 / PROFILED, "product": 3 / PROFILED}
    )


def test_a_baseline_runs_the_convolutions_of_its_libraries():
    from baselines import as_published

    model = make_model()
    ours = {name: type(module) for name, module in model.named_modules()}
    as_published(model, True)
    changed = {name: type(module) for name, module in model.named_modules() if type(module) is not ours[name]}
    assert set(changed.values()) == {WanCausalConv3d, nn.Conv2d}
    assert {ours[name] for name in changed} == {FrameConv3d, PatchConv2d}
    as_published(model, False)
    assert {name: type(module) for name, module in model.named_modules()} == ours

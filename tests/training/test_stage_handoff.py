"""From stage to stage: every parameter that trains, every optimizer group and its rate, and what must not move."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld

TRAINED = [
    *[("world_projector",)] * 2,
    *[("world_projector", "vision")] * 2,
    *[("world_projector", "language")] * 3,
]
"""Groups that train in each optimizer step of the fixture `stages`."""
RATES = [
    {"world_projector": 1e-2, "vision": 0.0, "language": 0.0},
    {"world_projector": 5.5e-3, "vision": 0.0, "language": 0.0},
    {"world_projector": 1e-2, "vision": 1e-3, "language": 0.0},  # a warmup of one step ends in it
    {"world_projector": 5.5e-3, "vision": 1e-3, "language": 0.0},
    {"world_projector": 1e-2, "vision": 0.0, "language": 1e-3},
    {"world_projector": 7.75e-3, "vision": 0.0, "language": 1e-3},
    {"world_projector": 3.25e-3, "vision": 0.0, "language": 5.5e-4},
]
"""By hand: cosine from the peak to a tenth of it; what is new warms up for one step and begins its cosine after it."""


class Boundaries(Callback):
    """What holds when an optimizer step is about to be made, and the weights after it."""

    def __init__(self) -> None:
        self.requires_grad: list[dict[str, bool]] = []
        self.groups: list[list[tuple[str, float, float, tuple[str, ...]]]] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.requires_grad.append({n: p.requires_grad for n, p in pl_module.world.named_parameters()})
        names = {p: n for n, p in pl_module.world.named_parameters()}
        self.groups.append(
            [
                (g["group"], g["weight_decay"], g["lr"], tuple(names[p] for p in g["params"]))
                for g in optimizer.param_groups
            ]
        )

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append({n: p.detach().clone() for n, p in pl_module.world.named_parameters()})


def members(world: TheWorld) -> dict[str, set[str]]:
    return {group: {name for name, _ in named} for group, named in parameter_groups(world).items()}


@pytest.fixture
def whole(make_module, make_data, make_trainer, tmp_path):
    """The uninterrupted run, saved after every step; module and what was seen."""
    seen, module = Boundaries(), make_module(weight_decay=0.1)
    saver = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    make_trainer(seen, saver, enable_checkpointing=True).fit(module, datamodule=make_data())
    return module, seen


def assert_handed_off(module, seen: Boundaries, *, begin: int) -> None:
    """From optimizer step `begin` on; steps are counted from 0."""
    groups = members(module.world)
    assert len(seen.requires_grad) == len(TRAINED) - begin
    for step, found in enumerate(seen.requires_grad, begin):
        expected = set().union(*(groups[group] for group in TRAINED[step]))
        assert {name for name, trains in found.items() if trains} == expected, step
    for step, found in enumerate(seen.groups, begin):
        assert [name for name, *_ in found] == [g for g in ("world_projector", "vision", "language") for _ in "ab"]
        assert [decay for _, decay, _, _ in found] == [0.1, 0.0] * 3
        assert {name: lr for name, _, lr, _ in found} == pytest.approx(RATES[step], rel=1e-12), step
        for group in RATES[step]:
            assert set().union(*(names for name, _, _, names in found if name == group)) == groups[group]


def test_every_parameter_group_and_rate_at_every_step(whole):
    module, seen = whole
    assert_handed_off(module, seen, begin=0)
    with pytest.raises(AssertionError):  # control: one step later it is another stage
        assert_handed_off(module, seen, begin=1)


def test_the_same_after_a_resume_in_every_stage(whole, make_module, make_data, make_trainer, tmp_path):
    _, uninterrupted = whole
    for saved_at in range(1, 7):
        module, seen = make_module(weight_decay=0.1), Boundaries()
        make_trainer(seen).fit(module, datamodule=make_data(), ckpt_path=tmp_path / f"step={saved_at}.ckpt")
        assert_handed_off(module, seen, begin=saved_at)
        for ours, theirs in zip(seen.weights, uninterrupted.weights[saved_at:], strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_frozen_keeps_every_bit(whole, base, make_module):
    """With weight decay, which would move it without a gradient."""
    module, seen = whole
    torch.manual_seed(0)
    start = {n: p.detach() for n, p in TheWorld.from_pretrained(base, world_image_size=16).named_parameters()}
    groups = members(module.world)
    assert all(torch.equal(seen.weights[-1][name], start[name]) for name in groups["world_encoder"])
    before = seen.weights[0]
    for name in groups["vision"] | groups["language"]:
        assert torch.equal(before[name], start[name]), name
    for step, (earlier, later) in enumerate(zip(seen.weights, seen.weights[1:], strict=False), 1):
        for group, names in groups.items():
            kept = {name for name in names if torch.equal(earlier[name], later[name])}
            if group in TRAINED[step]:
                assert kept < names, (step, group)  # control: what trains moves
            else:
                assert kept == names, (step, group)


def test_the_number_of_trained_parameters_is_printed_at_every_boundary(make_module, make_data, make_trainer, capsys):
    module = make_module()
    make_trainer().fit(module, datamodule=make_data())
    size = {g: sum(p.numel() for _, p in named) for g, named in parameter_groups(module.world).items()}
    assert size["world_projector"] == 16 * 16 + 16 + 16 * 16 + 16
    printed = capsys.readouterr().out
    projector = f"world_projector ({size['world_projector']:,})"
    assert f"Step 2: projection is complete, vision trains {projector}, vision ({size['vision']:,})\n" in printed
    assert f"Step 4: vision is complete, language trains {projector}, language ({size['language']:,})\n" in printed
    table = " ".join(printed.split())
    for count in size.values():
        assert f"{count:,}" in table  # the table at the start

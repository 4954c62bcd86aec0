"""A stage that ends early: when, what follows from it, and that a resumed run ends it at the same step."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.training.conftest import one_stage
from theworld.training.callbacks import stage_plateau
from theworld.training.callbacks.stage_export import StageExport
from theworld.training.callbacks.stage_plateau import StagePlateau
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.events import read_events
from theworld.training.stages import LearningRates, Plateau, Schedule, Stage


@pytest.mark.parametrize(
    ("losses", "reached"),
    [
        ([], False),
        ([3.0], False),
        ([3.0, 2.95], False),
        ([3.0, 2.95, 2.91], True),  # lower, but each time by less than 0.1 than the lowest that counted
        ([3.0, 2.95, 2.89], False),
        ([3.0, 2.95, 2.89, 2.88, 2.87], True),
        ([3.0, 4.0, 2.0, 4.0], False),
        ([math.nan, math.nan], True),
    ],
)
def test_two_measurements_without_an_improvement(losses, reached):
    assert Plateau(every_n_steps=1, patience=2, min_delta=0.1).is_reached(losses) is reached


def test_a_schedule_with_a_shorter_stage():
    first = Stage(learning_rates=LearningRates(world_projector=1.0), max_steps=8, min_lr_ratio=0.0)
    second = Stage(learning_rates=LearningRates(world_projector=1.0, vision=0.5), max_steps=4, warmup_steps=2)
    planned = Schedule({"first": first, "second": second})
    shorter = planned.ending_at(5)
    assert (shorter.boundaries, shorter.begins, shorter.total_steps) == ((5, 9), (0, 5), 9)
    assert (planned.boundaries, planned.total_steps) == ((8, 12), 12)  # is another one
    assert shorter.ended == {"first": 5}
    for group in ("world_projector", "vision"):
        before = [shorter.learning_rate(group, step) for step in range(5)]
        assert before == [planned.learning_rate(group, step) for step in range(5)]
        after = [shorter.learning_rate(group, step) for step in range(5, 9)]
        assert after == [planned.learning_rate(group, step) for step in range(8, 12)]
    assert shorter.learning_rate("vision", 5) == 0.25
    assert [shorter.finished(step) for step in (5, 8, 9)] == ["first", None, "second"]
    assert shorter.untouched_until("vision") == 5
    both = shorter.ending_at(7)
    assert both.ended == {"first": 5, "second": 2}
    assert both.total_steps == 7
    assert planned.with_ended({"first": 5, "second": 2}).boundaries == both.boundaries
    with pytest.raises(ValueError, match="found that stage 'third' ended after 1 steps, expected one of first, second"):
        planned.with_ended({"third": 1})
    with pytest.raises(ValueError, match="found that stage 'first' ended after 9 steps"):
        planned.with_ended({"first": 9})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every_n_steps": 0}, "found every_n_steps=0"),
        ({"patience": 0}, "found patience=0"),
        ({"min_delta": -1.0}, "found min_delta=-1.0"),
    ],
)
def test_a_plateau_that_is_none_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Plateau(**({"every_n_steps": 1, "patience": 1} | changes))


class Steps(Callback):
    """Groups that train, the rates and the loss in each optimizer step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        trained = {n.split(".")[1] for n, p in pl_module.world.named_parameters() if p.requires_grad}
        rates = {g["group"]: g["lr"] for g in optimizer.param_groups}
        self.seen.append((trainer.global_step, sorted(trained), rates))


@pytest.fixture
def early(stages):
    """Projection may have 6 steps and ends when a measurement, every second step, is no better by 100 nats: after 4."""
    plateau = Plateau(every_n_steps=2, patience=1, min_delta=100.0)
    return stages | {"projection": replace(stages["projection"], max_steps=6, advance_on_plateau=plateau)}


@pytest.fixture
def fit(make_module, make_data, make_trainer, early):
    def run(*callbacks: Callback, ckpt_path=None, stages=None, **changes):
        seen, plateau = Steps(), StagePlateau()
        module = make_module(stages=stages or early)
        trainer = make_trainer(seen, **changes)
        # As in theworld.cli: before StageSchedule, and what saves comes last.
        trainer.callbacks = [plateau, StageSchedule(), seen, *callbacks]
        trainer.fit(module, datamodule=make_data(), ckpt_path=ckpt_path)
        return module, trainer, seen.seen, plateau

    return run


def test_the_stage_ends_early_and_everything_follows(fit, tmp_path, capsys):
    saver = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    module, trainer, seen, plateau = fit(StageExport(), saver)
    losses = plateau.losses["projection"]
    assert len(losses) == 2
    assert trainer.global_step == 4 + 2 + 3
    assert module.schedule.boundaries == (4, 6, 9)
    printed = capsys.readouterr().out
    assert "Step 4: projection ends 2 steps early" in printed
    (event,) = read_events(tmp_path, "stage_ended_early")
    assert (event["step"], event["stage"], event["losses"]) == (4, "projection", losses)
    assert "Step 4: projection is complete, vision trains" in printed
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["language", "projection", "vision"]
    expected = [{g: module.schedule.learning_rate(g, step) for g in module.schedule.groups} for step in range(9)]
    assert [rates for _, _, rates in seen] == expected
    assert [rates["vision"] for _, _, rates in seen][3:6] == [0.0, 1e-3, 1e-3]

    final = {n: p.detach().clone() for n, p in module.world.named_parameters()}
    for step in range(1, 9):  # before the first measurement, at it, after it, at the early end, and in later stages
        resumed, again, later, other = fit(ckpt_path=tmp_path / "saved" / f"step={step}.ckpt")
        assert again.global_step == 9
        assert later == seen[step:]
        assert other.losses == plateau.losses
        assert all(torch.equal(p, final[n]) for n, p in resumed.world.named_parameters())
    _, finished, nothing, _ = fit(ckpt_path=tmp_path / "saved" / "step=9.ckpt")
    assert (finished.global_step, nothing) == (9, [])


def test_a_loss_that_keeps_falling_ends_nothing(fit, early):
    """Control: the same, but any fall counts, and the first stage's loss falls."""
    plateau = Plateau(every_n_steps=2, patience=2)
    stages = early | {"projection": replace(early["projection"], advance_on_plateau=plateau)}
    module, trainer, _, measured = fit(stages=stages)
    first, second = measured.losses["projection"]
    assert second < first
    assert trainer.global_step == 6 + 2 + 3
    assert module.schedule.ended == {}


def test_the_last_stage_may_end_early_too(fit):
    plateau = Plateau(every_n_steps=1, patience=1, min_delta=100.0)
    stage = replace(one_stage(5, world_projector=1e-2)["only"], advance_on_plateau=plateau)
    _, trainer, seen, _ = fit(stages={"only": stage})
    assert (trainer.global_step, len(seen)) == (2, 2)


def test_all_ranks_follow_the_first(fit, monkeypatch):
    """A decision that differs between ranks would hang the run: it is the main process's."""
    asked = []

    def broadcast(self, value, src=0):
        asked.append(value)
        return value

    monkeypatch.setattr("lightning.pytorch.strategies.SingleDeviceStrategy.broadcast", broadcast)
    fit()
    assert [value for value in asked if isinstance(value, bool)] == [False, True]


def test_what_cannot_end_a_stage_is_refused(make_module, make_data, make_trainer, early, monkeypatch):
    with pytest.raises(ValueError, match=r"found stages that may end early \(projection\) and nothing that ends them"):
        make_trainer().fit(make_module(stages=early), datamodule=make_data())
    with pytest.raises(ValueError, match="found advance_on_plateau without validation rows"):
        make_trainer(StagePlateau()).fit(
            make_module(stages=early), datamodule=make_data(val_path=None, val_images=None)
        )
    data = make_data()
    monkeypatch.setattr(type(data), "features", ["a cache"])
    with pytest.raises(ValueError, match="found advance_on_plateau and cached features"):
        make_trainer(StagePlateau()).fit(make_module(stages=early), datamodule=data)


def test_a_checkpoint_that_forgot_would_go_on_as_planned(fit, tmp_path, monkeypatch):
    """Positive control of the resume above."""
    saver = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    monkeypatch.setattr(stage_plateau.StagePlateau, "on_save_checkpoint", lambda *_: None)
    fit(saver)
    module, _, _, _ = fit(ckpt_path=tmp_path / "saved" / "step=5.ckpt")
    assert module.schedule.boundaries != (4, 6, 9)

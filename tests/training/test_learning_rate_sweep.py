"""The sweep of learning rates: what each step was made with, what is said of it, and why Lightning's is refused."""

from __future__ import annotations

import csv
import math

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.tuner import Tuner

from tests.training.conftest import one_stage
from theworld.training.callbacks import stage_schedule
from theworld.training.callbacks.learning_rate_sweep import LearningRateSweep, smoothed, steepest
from theworld.training.stages import LearningRates, Stage


class Rates(Callback):
    """The rate of each group in each optimizer step as it is made."""

    def __init__(self) -> None:
        self.rates: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rates.append({g["group"]: g["lr"] for g in trainer.optimizers[0].param_groups})


STAGES = {
    "first": Stage(learning_rates=LearningRates(world_projector=1e-2, language=1e-3), max_steps=50, warmup_steps=30),
    "second": Stage(learning_rates=LearningRates(vision=1e-3), max_steps=5),
}


@pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")
def test_every_step_has_its_factor_of_the_first_stage_s_peaks(make_module, make_data, make_trainer, tmp_path, capsys):
    sweep, seen = LearningRateSweep(enabled=True, lowest=0.01, highest=1.0, num_steps=21), Rates()
    trainer = make_trainer(sweep, seen)
    trainer.fit(make_module(stages=STAGES), datamodule=make_data())
    assert trainer.global_step == 21
    assert [rates["vision"] for rates in seen.rates] == [0.0] * 21
    for step, rates in enumerate(seen.rates):
        factor = 10 ** (-2 + step / 10)
        assert rates["world_projector"] == pytest.approx(1e-2 * factor, rel=1e-9)
        assert rates["language"] == pytest.approx(1e-3 * factor, rel=1e-9)
    with (tmp_path / "learning_rate_sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in table] == sweep.losses
    assert sweep.losses[-1] < sweep.losses[0]
    factor = steepest(sweep.factors, sweep.losses)
    said = f"Stage first: the loss fell fastest at {factor:.3g} times its rates: world_projector {1e-2 * factor:.2g}, "
    assert said in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")
def test_it_ends_when_the_loss_runs_away(make_module, make_data, make_trainer):
    sweep = LearningRateSweep(enabled=True, lowest=1.0, highest=1e6, num_steps=40)
    trainer = make_trainer(sweep)
    trainer.fit(make_module(stages=STAGES), datamodule=make_data())
    assert 3 < trainer.global_step < 40
    assert len(sweep.losses) == trainer.global_step
    assert not smoothed(sweep.losses)[-1] <= 4 * min(smoothed(sweep.losses))


def test_the_steepest_place_of_known_curves():
    factors = [10 ** (step / 10) for step in range(60)]
    falling = [3.0 - 2.0 / (1.0 + math.exp(-(step - 30))) for step in range(60)]  # steepest at 30, smoothing is late
    found = steepest(factors, falling)
    assert found is not None
    assert 30 <= factors.index(found) <= 36
    assert steepest(factors, [1.0 + 0.1 * step for step in range(60)]) is None
    assert steepest(factors, [*falling[:45], math.nan, *falling[46:]]) == found
    assert steepest(factors, [1.0, 0.5]) is None
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0] * 3)
    assert smoothed([1.0, 3.0]) == pytest.approx([1.0, (0.09 + 0.3) / 0.19])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lowest": 0.0}, "found factors from 0.0 to 100.0"),
        ({"lowest": 1.0, "highest": 1.0}, "found factors from 1.0 to 1.0"),
        ({"num_steps": 9}, "found num_steps=9"),
    ],
)
def test_a_sweep_that_is_none_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LearningRateSweep(**changes)


def test_what_would_be_kept_or_cut_short_is_refused(make_module, make_data, make_trainer, tmp_path):
    sweep = LearningRateSweep(enabled=True, num_steps=10)
    saving = make_trainer(sweep, ModelCheckpoint(tmp_path), enable_checkpointing=True)
    with pytest.raises(ValueError, match="found checkpoints in a learning rate sweep"):
        saving.fit(make_module(stages=STAGES), datamodule=make_data())
    training = make_trainer(max_steps=2)
    training.fit(make_module(stages=STAGES), datamodule=make_data())
    training.save_checkpoint(path := tmp_path / "step=2.ckpt")
    with pytest.raises(ValueError, match=f"found a learning rate sweep that begins from {path}, expected none"):
        make_trainer(sweep).fit(make_module(stages=STAGES), datamodule=make_data(), ckpt_path=path)
    with pytest.raises(ValueError, match="found a first stage of 10 steps, expected more than the 10 of the sweep"):
        make_trainer(sweep).fit(make_module(stages=one_stage(10, language=1e-3)), datamodule=make_data())


def test_lightning_s_finder_is_refused(make_module, make_data, make_trainer):
    with pytest.raises(ValueError, match="found Lightning's LearningRateFinder, expected none"):
        make_trainer(LearningRateFinder()).fit(make_module(stages=STAGES), datamodule=make_data())
    with pytest.raises(ValueError, match="found Lightning's LearningRateFinder, expected none"):
        Tuner(make_trainer()).lr_find(make_module(stages=STAGES), datamodule=make_data())


def test_because_it_changes_nothing(make_module, make_data, make_trainer, monkeypatch):
    """Positive control of the refusal: the optimizer's rates while Lightning believes to sweep them."""
    monkeypatch.setattr(stage_schedule, "LearningRateFinder", int)  # refuse nothing
    seen = []
    module = make_module(stages=STAGES)
    step = module.optimizer_step

    def noting(epoch, batch_idx, optimizer, closure=None):
        seen.append(optimizer.param_groups[0]["lr"])
        return step(epoch, batch_idx, optimizer, closure)

    monkeypatch.setattr(module, "optimizer_step", noting)
    Tuner(make_trainer()).lr_find(module, datamodule=make_data(), num_training=5, update_attr=False)
    assert seen == [module.schedule.learning_rate("world_projector", number) for number in range(len(seen))]
    assert len(seen) >= 5

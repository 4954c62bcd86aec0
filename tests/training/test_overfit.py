"""`trainer.overfit_batches`: the same few steps over and over, until the loss is next to nothing."""

from __future__ import annotations

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.training.conftest import one_stage


class Rows(Callback):
    """The samples of each micro-batch, and the loss of each step."""

    def __init__(self) -> None:
        self.ids: list[tuple[str, ...]] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.ids.append(tuple(batch.ids))
        if pl_module.steps_after(batch_idx):
            self.losses.append(float(trainer.callback_metrics["train/loss"]))


@pytest.fixture
def fit(make_module, make_data, make_trainer):
    """Two micro-batches a step; three steps are in the data."""

    def run(steps: int, *callbacks: Callback, rate: float = 1e-3, ckpt_path=None, num_workers: int = 0, **changes):
        rows = Rows()
        module = make_module(stages=one_stage(steps, world_projector=rate, vision=rate, language=rate))
        trainer = make_trainer(rows, *callbacks, accumulate_grad_batches=2, **changes)
        data = make_data(micro_batches_per_step=2, num_workers=num_workers)
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
        return rows

    return run


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_first_steps_of_the_plan_again_and_again(fit, num_workers):
    planned = fit(6).ids
    assert len(set(planned)) > 6  # control: without it the order of the second epoch is another
    found = fit(6, overfit_batches=4, num_workers=num_workers).ids
    assert found == planned[:4] * 3


def test_more_than_there_is_is_all_there_is(fit):
    found = fit(6, overfit_batches=100).ids
    assert found[:6] == found[6:]


def test_the_loss_goes_to_nothing(fit):
    losses = fit(100, rate=1e-2, overfit_batches=2).losses
    assert losses[0] > 1.0
    assert losses[-1] < 0.1


def test_a_resumed_run_goes_on_in_the_same_place(fit, tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(5, saver, overfit_batches=4, enable_checkpointing=True)
    for step in (1, 2, 3):
        resumed = fit(5, overfit_batches=4, ckpt_path=tmp_path / f"step={step}.ckpt")
        assert resumed.ids == whole.ids[2 * step :]
        assert resumed.losses == whole.losses[step:]
    with pytest.raises(ValueError, match="repeat_steps"):
        fit(5, overfit_batches=2, ckpt_path=tmp_path / "step=1.ckpt")
    with pytest.raises(ValueError, match="repeat_steps"):
        fit(5, ckpt_path=tmp_path / "step=1.ckpt")


@pytest.mark.parametrize("batches", [3, 0.5])
def test_what_is_no_whole_number_of_steps_is_refused(fit, batches):
    with pytest.raises(ValueError, match=f"found overfit_batches={batches}, expected whole optimizer steps of"):
        fit(2, overfit_batches=batches)

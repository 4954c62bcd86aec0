"""Runs through Lightning with the callback and the plugin: what stays on disk, what `last` means, one run at a time."""

from __future__ import annotations

import os
import re
from functools import partial

import pytest
import torch

from tests.training.checkpoints.test_newest import damage
from tests.training.conftest import one_stage
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.checkpoints.lock import lock_directory
from theworld.training.checkpoints.plugin import CheckpointDirectories
from theworld.training.events import read_events


@pytest.fixture
def fit(make_trainer, make_module, make_data, tmp_path):
    """Fit until a step, saving after each one, and return the trained weights."""

    def run(steps: int, ckpt_path=None, accumulate: int = 1, **changes: object) -> dict[str, torch.Tensor]:
        rules = {"filename": "{step}", "every_n_train_steps": 1, "save_last": "link"} | changes
        saver = CrashSafeCheckpoint(tmp_path / "saved", **rules)
        settings = {"max_steps": steps, "accumulate_grad_batches": accumulate, "enable_checkpointing": True}
        trainer = make_trainer(saver, plugins=[CheckpointDirectories()], **settings)
        module = make_module(stages=one_stage(4, world_projector=1e-2))
        trainer.fit(module, datamodule=make_data(micro_batches_per_step=accumulate), ckpt_path=ckpt_path)
        assert trainer.global_step == steps
        return {name: weight.detach().clone() for name, weight in module.world.named_parameters()}

    return run


@pytest.fixture
def names(tmp_path):
    return lambda: sorted(path.name for path in (tmp_path / "saved").glob("[!.]*"))


RESUMED = "ignore:Checkpoint directory .* exists and is not empty:UserWarning"


@pytest.mark.filterwarnings(RESUMED)
def test_a_damaged_last_one_is_skipped_and_the_run_ends_as_if_it_had_not_been(fit, names, tmp_path, caplog):
    whole = fit(4)
    assert names() == ["LATEST", "last.ckpt", "step=3.ckpt", "step=4.ckpt"]
    assert os.readlink(tmp_path / "saved" / "last.ckpt") == "step=4.ckpt"
    assert (tmp_path / "saved" / "LATEST").read_text() == "step=4.ckpt\n"
    damage(tmp_path / "saved" / "step=4.ckpt")
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        resumed = fit(4, ckpt_path="last")
    assert "Skipped a checkpoint" in caplog.text
    (event,) = read_events(tmp_path, "checkpoint_skipped")
    assert "step=4.ckpt/checkpoint.pt: found sha256" in event["reason"]
    assert "step=4.ckpt/checkpoint.pt: found sha256" in caplog.text
    assert f"The last checkpoint that verifies is {tmp_path / 'saved' / 'step=3.ckpt'}" in caplog.text
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    with pytest.raises(ValueError, match="expected"):
        fit(4, ckpt_path=str(tmp_path / "saved" / "step=4.ckpt"))
    earlier = fit(3)
    assert any(not torch.equal(earlier[name], whole[name]) for name in whole)  # control: the fourth step does something


@pytest.mark.filterwarnings(RESUMED)
def test_a_run_that_is_resumed_again_and_again_keeps_two(fit, names):
    for steps in (1, 2, 3, 4):
        fit(steps, ckpt_path="last" if steps > 1 else None)
        assert names() == ["LATEST", "last.ckpt", *(f"step={step}.ckpt" for step in (steps - 1, steps) if step)]


@pytest.mark.filterwarnings(RESUMED)
def test_a_resumed_run_does_not_save_what_it_started_from_in_the_middle_of_a_step(fit, tmp_path):
    fit(2, accumulate=2, every_n_train_steps=2)
    manifest = tmp_path / "saved" / "step=2.ckpt" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    fit(3, accumulate=2, every_n_train_steps=2, ckpt_path="last")
    assert manifest.stat().st_mtime_ns == before
    loader = CheckpointDirectories().load_checkpoint(manifest.parent)["OSDDataModule"]["train"]
    assert (loader["step"] + loader["epoch"] * 3, loader["unfinished_micro_batches"]) == (2, 0)


@pytest.mark.filterwarnings(RESUMED)
def test_one_that_was_asked_for_by_name_stays(fit, names, tmp_path):
    fit(1)
    fit(4, ckpt_path=str(tmp_path / "saved" / "step=1.ckpt"))
    assert names() == ["LATEST", "last.ckpt", "step=1.ckpt", "step=3.ckpt", "step=4.ckpt"]


def test_all_may_be_kept(fit, names):
    fit(3, save_top_k=-1, save_last=None)
    assert names() == ["LATEST", "step=1.ckpt", "step=2.ckpt", "step=3.ckpt"]


def test_a_second_run_in_the_directory_is_refused(fit, tmp_path):
    first = lock_directory(tmp_path / "saved")
    with pytest.raises(ValueError, match="found another run that writes checkpoints there"):
        fit(1)
    first.close()
    fit(1)
    lock_directory(tmp_path / "saved").close()  # given back at the end


def test_a_folder_that_cannot_be_is_refused(fit, tmp_path):
    (tmp_path / "saved").write_text("a file")
    with pytest.raises(ValueError, match=r"saved: found \[Errno 17\] .* expected a folder that can be written to"):
        fit(1)


def test_a_run_that_fails_gives_the_directory_back(fit, tmp_path, monkeypatch):
    monkeypatch.setattr("theworld.training.checkpoints.plugin.free_bytes", lambda folder: 10)
    with pytest.raises(ValueError, match="found 10 bytes free"):
        fit(1)
    lock_directory(tmp_path / "saved").close()


def test_at_least_one_must_stay(tmp_path):
    with pytest.raises(ValueError, match="found keep_newest=0, expected at least 1"):
        CrashSafeCheckpoint(tmp_path, keep_newest=0)


def test_weights_alone_are_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="found save_weights_only=True, expected False: no run could go on"):
        CrashSafeCheckpoint(tmp_path, save_weights_only=True)


def test_an_error_in_the_middle_of_a_step_is_not_saved(tmp_path):
    """The loader has handed out the step's rows by then: a run that went on from there would leave them out."""
    with pytest.raises(ValueError, match="found save_on_exception=True, expected False"):
        CrashSafeCheckpoint(tmp_path, save_on_exception=True)


def test_a_name_with_folders_is_refused(fit, names, tmp_path):
    """`last` would find none there, and a job that is requeued would begin anew, in silence."""
    for filename in ("{step}-{train/loss:.2f}", "{epoch}/{step}", "../{step}"):
        with pytest.raises(ValueError, match="which makes folders"):
            CrashSafeCheckpoint(tmp_path, filename=filename)
    fit(1, filename="step={step}-{train/loss:.2f}", auto_insert_metric_name=False, save_last=False)
    (name,) = (name for name in names() if name != "LATEST")
    assert re.fullmatch(r"step=1-\d\.\d\d\.ckpt", name)


@pytest.mark.parametrize("rules", [{"every_n_train_steps": None}, {"every_n_train_steps": 1}])
def test_a_validation_in_the_middle_of_a_step_is_not_saved_after(make_trainer, make_module, make_data, tmp_path, rules):
    for interval, expected in ((3, "found validations every 3 micro-batches"), (2, None)):
        saver = CrashSafeCheckpoint(tmp_path / str(interval), monitor="val/loss", save_top_k=-1, **rules)
        validation = {"limit_val_batches": 1, "val_check_interval": interval, "check_val_every_n_epoch": None}
        settings = {"accumulate_grad_batches": 2, "max_steps": 3, "enable_checkpointing": True} | validation
        trainer = make_trainer(saver, plugins=[CheckpointDirectories()], **settings)
        run = partial(trainer.fit, make_module(stages=one_stage(3, world_projector=1e-2)))
        if expected is not None:
            with pytest.raises(ValueError, match=expected):
                run(datamodule=make_data(micro_batches_per_step=2))
            continue
        run(datamodule=make_data(micro_batches_per_step=2))
        saved = [CheckpointDirectories().load_checkpoint(path) for path in (tmp_path / "2").glob("*.ckpt")]
        loaders = [content["loops"]["fit_loop"]["state_dict"]["combined_loader"][0] for content in saved]
        assert saved
        assert not any(loader["unfinished_micro_batches"] for loader in loaders)

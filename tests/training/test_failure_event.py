"""The error that ends a run is written down; an interruption is none."""

from __future__ import annotations

import pytest
from lightning.pytorch import Callback

from tests.training.conftest import one_stage
from theworld.training.callbacks.failure_event import FailureEvent
from theworld.training.checkpoints import plugin
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.events import read_events


class Raises(Callback):
    """Raises in the second batch."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            raise self.error


@pytest.fixture
def fit(make_trainer, make_module, make_data):
    def run(*callbacks: Callback, **trainer: object) -> None:
        module = make_module(stages=one_stage(4, world_projector=1e-2))
        make_trainer(FailureEvent(), *callbacks, **trainer).fit(module, datamodule=make_data())

    return run


def test_an_error_in_a_step(fit, tmp_path):
    with pytest.raises(RuntimeError, match="the disk burns"):
        fit(Raises(RuntimeError("the disk burns")))
    (event,) = read_events(tmp_path)
    assert (event["event"], event["step"], event["rank"]) == ("run_failed", 1, 0)
    assert (event["error"], event["message"], event["while"]) == ("RuntimeError", "the disk burns", "TrainerFn.FITTING")


def test_a_save_that_is_refused(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "free_bytes", lambda folder: 10)
    saver = CrashSafeCheckpoint(tmp_path / "saved", every_n_train_steps=2)
    with pytest.raises(ValueError, match="found 10 bytes free"):
        fit(saver, enable_checkpointing=True, plugins=[plugin.CheckpointDirectories()])
    (event,) = read_events(tmp_path)
    assert (event["event"], event["step"], event["error"]) == ("run_failed", 2, "ValueError")
    assert "found 10 bytes free" in event["message"]


@pytest.mark.parametrize("error", [SystemExit(85), KeyboardInterrupt()])
def test_an_interruption_is_no_failure(fit, tmp_path, error):
    with pytest.raises(SystemExit):
        fit(Raises(error))
    assert read_events(tmp_path) == []


def test_the_error_of_the_run_is_the_one_that_came_first(fit, tmp_path):
    (tmp_path / "events.jsonl").mkdir()  # nothing can be written there
    with (
        pytest.warns(UserWarning, match="run_failed could not be written: IsADirectoryError"),
        pytest.raises(RuntimeError, match="the disk burns"),
    ):
        fit(Raises(RuntimeError("the disk burns")))

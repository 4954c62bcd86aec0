"""Signals that come within a process: handlers, second signals, what is logged, settings."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from tests.training.conftest import one_stage
from theworld.training.callbacks.preemption import Preempted, Preemption
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.checkpoints.newest import newest_checkpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories
from theworld.training.events import read_events

pytestmark = [
    pytest.mark.usefixtures("handlers"),
    pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning"),
]


class Signal(Callback):
    """Sends signals to this process in the middle of a step, before its optimizer steps."""

    def __init__(self, *numbers: signal.Signals, at: int = 1):
        self.numbers, self.at = numbers, at

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == self.at:
            for number in self.numbers:
                os.kill(os.getpid(), number)


def test_handlers_are_given_back_after_any_other_end(make_module, make_data, make_trainer, handlers):
    class Fails(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            assert signal.getsignal(signal.SIGTERM) != handlers[signal.SIGTERM]
            if trainer.global_step == 1:
                raise KeyError("an error of the run's own")

    for steps in (1, 2):
        trainer, module = make_trainer(Fails(), Preemption()), make_module(stages=one_stage(steps, world_projector=0.1))
        with nullcontext() if steps == 1 else pytest.raises(KeyError):
            trainer.fit(module, datamodule=make_data())
        assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_a_second_signal_changes_nothing(make_module, make_data, make_trainer, tmp_path):
    saver = CrashSafeCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=1000)
    callbacks = (Signal(signal.SIGUSR1, signal.SIGTERM), Preemption(exit_code=99), saver)
    trainer = make_trainer(*callbacks, enable_checkpointing=True, plugins=[CheckpointDirectories()])
    with pytest.raises(Preempted) as stop:
        trainer.fit(make_module(stages=one_stage(5, world_projector=1e-2)), datamodule=make_data())
    assert stop.value.code == 99
    assert newest_checkpoint(tmp_path / "saved")[0] == tmp_path / "saved" / "step=2.ckpt"
    assert [event["signal"] for event in read_events(tmp_path)] == ["SIGUSR1"]
    os.kill(os.getpid(), signal.SIGTERM)  # nor does one that comes behind all callbacks


def test_without_a_checkpoint_callback_the_code_says_that_nothing_was_saved(make_module, make_data, make_trainer):
    trainer = make_trainer(Signal(signal.SIGTERM), Preemption())
    with pytest.raises(Preempted) as stop:
        trainer.fit(make_module(stages=one_stage(5, world_projector=1e-2)), datamodule=make_data())
    assert stop.value.code == 128 + signal.SIGTERM
    assert trainer.global_step == 2


def test_the_step_it_leaves_after_is_logged(make_trainer, make_module, make_data, tmp_path):
    """Lightning hands a step's numbers to the logger behind the hook in which the run ends."""

    class Signal(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 1:
                os.kill(os.getpid(), signal.SIGUSR1)

    logger = CSVLogger(tmp_path)
    settings = {"enable_checkpointing": True, "plugins": [CheckpointDirectories()], "log_every_n_steps": 1}
    saver = CrashSafeCheckpoint(tmp_path / "saved", every_n_train_steps=100)
    trainer = make_trainer(Signal(), Preemption(), saver, logger=logger, **settings)
    with pytest.raises(SystemExit, match="85"):
        trainer.fit(make_module(stages=one_stage(4, world_projector=1e-2)), datamodule=make_data())
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    header = rows[0].split(",")
    logged = {row.split(",")[header.index("step")] for row in rows[1:] if row.split(",")[header.index("train/loss")]}
    assert logged == {"0", "1"}


@pytest.mark.parametrize("settings", [{"exit_code": 0}, {"exit_code": 130}, {"every_n_steps": 0}, {"grace_seconds": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"found {name}={settings[name]}"):
        Preemption(**settings)

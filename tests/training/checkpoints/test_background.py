"""Saves in the background: the same bytes, one at a time, nothing announced before it is there, no error lost."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy

from tests.training.checkpoints.faults import disk_full, fail_once
from tests.training.conftest import one_stage
from theworld.training.checkpoints import background
from theworld.training.checkpoints.background import BackgroundSaves, HostMemory
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.checkpoints.lock import lock_directory
from theworld.training.checkpoints.newest import newest_checkpoint
from theworld.training.checkpoints.plugin import CONTENT, CheckpointDirectories


class Gate(CheckpointDirectories):
    """The plugin, which begins to write a checkpoint when it is let."""

    def __init__(self):
        self.opened = threading.Event()
        self.writing = 0
        self.most = 0

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        self.writing += 1
        self.most = max(self.most, self.writing)
        assert self.opened.wait(20)
        super().save_checkpoint(checkpoint, path, storage_options)
        self.writing -= 1


def state(value: float) -> dict[str, object]:
    whole = torch.full((100,), value)
    return {"part": whole[10:20], "whole": [whole, (whole.view(10, 10).t(),)], "half": whole.bfloat16(), "epoch": 3}


def test_it_writes_the_bytes_that_a_save_on_the_training_thread_writes(tmp_path):
    plugins = {"sync": CheckpointDirectories(), "background": BackgroundSaves(CheckpointDirectories())}
    plugins["lightning"] = AsyncCheckpointIO(CheckpointDirectories())
    for name, plugin in plugins.items():
        plugin.save_checkpoint(state(1.5), tmp_path / f"{name}.ckpt")
        plugin.teardown()
    content = {name: (tmp_path / f"{name}.ckpt" / CONTENT).read_bytes() for name in plugins}
    assert content["background"] == content["sync"]
    assert len(content["lightning"]) > len(content["sync"])  # control: shared memory is cloned for every tensor


@pytest.mark.parametrize("reserves", [True, False])
def test_reserved_memory_is_what_a_save_uses(tmp_path, monkeypatch, reserves):
    """With the control that a save without it allocates; a second kind of state needs only what is new."""
    made = []
    monkeypatch.setattr(
        background, "_allocate", lambda kind: made.append(kind) or torch.empty(kind[0], dtype=torch.uint8)
    )
    plugin = BackgroundSaves(CheckpointDirectories())
    if reserves:
        plugin.reserve(state(1.0))
        plugin.wait()
        assert sorted(made) == [(200, False), (400, False)]
    before = len(made)
    plugin.save_checkpoint(state(1.0), tmp_path / "a.ckpt")
    plugin.wait()
    assert len(made) - before == (0 if reserves else 2)
    plugin.reserve(state(1.0) | {"new": torch.zeros(100), "large": torch.zeros(300)})
    plugin.wait()
    assert sorted(made[2:]) == [(400, False), (1200, False)]


def test_a_run_reserves_as_soon_as_moments_are_there(make_module, make_data, make_trainer, tmp_path, monkeypatch):
    made, saved = [], []
    allocate, copy = background._allocate, HostMemory.copy
    monkeypatch.setattr(background, "_allocate", lambda kind: made.append(kind) or allocate(kind))

    def counted(self, value):
        before = len(made)
        copied = copy(self, value)
        saved.append((before, len(made)))
        return copied

    monkeypatch.setattr(HostMemory, "copy", counted)
    callback = CrashSafeCheckpoint(tmp_path / "checkpoints", async_save=True, every_n_train_steps=2, save_top_k=-1)
    trainer = make_trainer(callback, enable_checkpointing=True, plugins=[CheckpointDirectories()])
    trainer.fit(make_module(stages=one_stage(4, world_projector=1e-2)), datamodule=make_data())
    assert saved[0][0] > 0
    assert all(before == after for before, after in saved)


def test_what_training_changes_afterwards_is_not_in_it(tmp_path):
    gate, content = Gate(), state(1.0)
    plugin = BackgroundSaves(gate)
    plugin.save_checkpoint(content, tmp_path / "a.ckpt")
    content["whole"][0].fill_(2.0)
    content["whole"].append("later")
    assert plugin.writes(tmp_path / "a.ckpt")
    gate.opened.set()
    plugin.wait()
    found = plugin.load_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(found["part"], torch.ones(10))
    assert len(found["whole"]) == 2
    assert not plugin.writes(tmp_path / "a.ckpt")


def test_a_second_save_waits_for_the_first_and_says_so(tmp_path, caplog):
    gate = Gate()
    plugin = BackgroundSaves(gate)
    plugin.save_checkpoint(state(1.0), tmp_path / "a.ckpt")
    opener = threading.Timer(0.2, gate.opened.set)
    opener.start()
    start = time.perf_counter()
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        plugin.save_checkpoint(state(2.0), tmp_path / "b.ckpt")
        waited = time.perf_counter() - start
        plugin.wait()
        plugin.save_checkpoint(state(3.0), tmp_path / "c.ckpt")  # control: nothing to wait for
    plugin.teardown()
    opener.join()
    assert waited > 0.1
    assert gate.most == 1
    said = [record.message for record in caplog.records if "Waited" in record.message]
    assert len(said) == 1
    assert f"for {tmp_path / 'a.ckpt'} to be written before {tmp_path / 'b.ckpt'}" in said[0]
    values = [float(plugin.load_checkpoint(tmp_path / f"{name}.ckpt")["part"][0]) for name in "abc"]
    assert values == [1.0, 2.0, 3.0]


def test_nothing_follows_a_save_that_failed(tmp_path, monkeypatch):
    plugin, done = BackgroundSaves(CheckpointDirectories()), []
    plugin.save_checkpoint(state(1.0), tmp_path / "a.ckpt")
    plugin.then(lambda: done.append("a"))
    plugin.wait()
    fail_once(monkeypatch, "write", 0, disk_full)
    plugin.save_checkpoint(state(2.0), tmp_path / "b.ckpt")
    plugin.then(lambda: done.append("b"))
    plugin.remove_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(OSError, match="No space left on device"):
        plugin.wait()
    assert done == ["a"]
    assert (tmp_path / "a.ckpt").exists()
    plugin.check()  # it was told once
    plugin.remove_checkpoint(tmp_path / "a.ckpt")
    plugin.teardown()
    assert not (tmp_path / "a.ckpt").exists()


def test_host_memory_is_used_again():
    memory = HostMemory()
    first = memory.copy({"a": torch.ones(5), "b": torch.zeros(0)})
    again = memory.copy({"a": torch.full((5,), 2.0), "b": torch.zeros(0)})
    assert again["a"].data_ptr() == first["a"].data_ptr()
    assert torch.equal(again["a"], torch.full((5,), 2.0))
    other = memory.copy({"a": torch.ones(6)})
    assert other["a"].data_ptr() != first["a"].data_ptr()


class Watch(Callback):
    """What LATEST says before each step, when the save after the step before has begun; opens a gate soon after one."""

    def __init__(self, folder, gate: Gate | None = None, *, at: int = 1, stop: bool = False):
        self.folder = folder
        self.gate = gate
        self.at = at
        self.stop = stop
        self.latest: list[str] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        latest = self.folder / "LATEST"
        self.latest.append(latest.read_text().strip() if latest.exists() else "")
        if trainer.global_step == self.at and self.gate is not None:
            threading.Timer(0.1, self.gate.opened.set).start()
        if trainer.global_step == self.at and self.stop:
            raise KeyError("an error of the run's own")


@pytest.fixture
def fit(make_trainer, make_module, make_data, tmp_path):
    """Fit with a save after each step, in `tmp_path / name`."""

    def run(name: str, *callbacks: Callback, plugin: CheckpointDirectories | None = None, steps: int = 4, **changes):
        rules = {"filename": "{step}", "every_n_train_steps": 1, "save_last": "link", "async_save": True} | changes
        saver = CrashSafeCheckpoint(tmp_path / name, **rules)
        plugins = [plugin or CheckpointDirectories()]
        trainer = make_trainer(*callbacks, saver, enable_checkpointing=True, plugins=plugins)
        module = make_module(stages=one_stage(steps, world_projector=1e-2))
        trainer.fit(module, datamodule=make_data())
        return trainer

    return run


def listing(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


def test_a_run_leaves_what_one_leaves_that_saves_on_the_training_thread(fit, tmp_path):
    fit("sync", async_save=False)
    fit("background")
    sync, background = tmp_path / "sync", tmp_path / "background"
    assert listing(background) == listing(sync) == ["LATEST", "last.ckpt", "step=3.ckpt", "step=4.ckpt"]
    assert os.readlink(background / "last.ckpt") == "step=4.ckpt"
    for name in ("step=3.ckpt", "step=4.ckpt"):
        ours, theirs = (CheckpointDirectories().load_checkpoint(folder / name) for folder in (background, sync))
        assert all(torch.equal(ours["state_dict"][n], theirs["state_dict"][n]) for n in theirs["state_dict"])
        assert ours["loops"] == theirs["loops"]
    lock_directory(background).close()  # given back at the end


def test_latest_does_not_name_what_is_not_there(fit, tmp_path):
    """The first save does not get to write before the second step has begun."""
    gate = Gate()
    watch = Watch(tmp_path / "slow", gate)
    fit("slow", watch, plugin=gate)
    assert watch.latest[:2] == ["", ""]  # also when the first step has been saved
    assert gate.most == 1
    assert listing(tmp_path / "slow")[-1] == "step=4.ckpt"
    control = Watch(tmp_path / "sync")
    fit("sync", control, async_save=False)
    assert control.latest == ["", "step=1.ckpt", "step=2.ckpt", "step=3.ckpt"]


class Settled(Callback):
    """Lets the saves that were begun end before the next step does."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        last = trainer.strategy.checkpoint_io._last
        while last is not None and not last.done():
            time.sleep(0.001)


@pytest.mark.parametrize(("failing", "saved_every"), [(2, 1), (3, 1), (4, 1), (4, 2)])
def test_an_error_ends_the_run_at_the_next_step_or_at_its_end(fit, tmp_path, failing, saved_every):
    class Full(CheckpointDirectories):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            if checkpoint["global_step"] == failing:
                raise disk_full()
            super().save_checkpoint(checkpoint, path, storage_options)

    watch = Watch(tmp_path / "full")
    with pytest.raises(OSError, match="No space left on device"):
        fit("full", watch, Settled(), plugin=Full(), every_n_train_steps=saved_every, steps=6)
    assert len(watch.latest) == failing + 1  # not two, where saves are two steps apart
    good = f"step={failing - saved_every}.ckpt"
    assert (tmp_path / "full" / "LATEST").read_text() == good + "\n"
    assert os.readlink(tmp_path / "full" / "last.ckpt") == good
    assert newest_checkpoint(tmp_path / "full") == (tmp_path / "full" / good, [])
    lock_directory(tmp_path / "full").close()


def test_an_error_of_the_last_save_is_that_of_the_run(fit, monkeypatch):
    fit("good")
    fail_once(monkeypatch, "write", 0, disk_full)
    with pytest.raises(OSError, match="No space left on device"):
        fit("full", every_n_train_steps=4)


def test_another_error_waits_for_the_save_under_way(fit, tmp_path):
    gate = Gate()
    with pytest.raises(KeyError, match="an error of the run's own"):
        fit("stopped", Watch(tmp_path / "stopped", gate, stop=True), plugin=gate)
    assert newest_checkpoint(tmp_path / "stopped") == (tmp_path / "stopped" / "step=1.ckpt", [])
    assert (tmp_path / "stopped" / "LATEST").read_text() == "step=1.ckpt\n"


def test_a_strategy_that_writes_by_itself_is_refused(make_trainer, make_module, make_data, tmp_path):
    class Sharded(SingleDeviceStrategy):
        def save_checkpoint(self, checkpoint, filepath, storage_options=None): ...

    saver = CrashSafeCheckpoint(tmp_path, async_save=True)
    trainer = make_trainer(saver, enable_checkpointing=True, strategy=Sharded("cpu"))
    with pytest.raises(ValueError, match="found async_save with the strategy Sharded, which writes checkpoints by"):
        trainer.fit(make_module(), datamodule=make_data())
    lock_directory(tmp_path).close()

"""SIGTERM and SIGUSR1 to real runs at any moment: saved after a step, the documented exit code, and nothing lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from tests.training.conftest import DATA, MODEL
from tests.training.preempted_run import FIRST, SECOND, losses, train
from tests.training.ranks import Ranks
from theworld.training.callbacks.preemption import Preemption
from theworld.training.checkpoints.newest import newest_checkpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories
from theworld.training.events import read_events

STEPS = FIRST + SECOND
pytestmark = [
    pytest.mark.usefixtures("handlers"),
    pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning"),
]


@pytest.fixture(scope="session")
def arguments(base, osd) -> dict[str, object]:
    train_rows = {name: path for name, path in osd.items() if name.startswith("train")}
    return {"data": {"base": base} | DATA | train_rows, "model": {"base": base} | MODEL}


@pytest.fixture(scope="session")
def whole(arguments, tmp_path_factory) -> Path:
    """The run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    Ranks(train, world_size=1, folder=folder, **arguments).wait()
    assert len(losses(folder)) == STEPS
    return folder


def _start(folder: Path, arguments: dict[str, object], world_size: int = 1) -> Ranks:
    """Wait until training has begun."""
    before = _begun(folder)
    ranks = Ranks(train, world_size=world_size, folder=folder, **arguments)
    deadline = time.monotonic() + 120
    while _begun(folder) == before and ranks.running:  # one that is saved after its last step has nothing to do
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return ranks


def _begun(folder: Path) -> int:
    path = folder / "losses-0.jsonl"
    return path.read_text().count('"pid"') if path.exists() else 0


def _exit_codes(ranks: Ranks) -> list[int | None]:
    for process in ranks.processes:
        process.join(60)
    codes = [process.exitcode for process in ranks.processes]
    ranks.kill()
    return codes


def _interrupt(folder: Path, arguments: dict[str, object], number: signal.Signals, delay: float) -> bool:
    """Signal the whole process group of a run, its loader's worker included; False if the run was over before."""
    ranks = _start(folder, arguments)
    time.sleep(delay)
    pid = ranks.processes[0].pid
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        assert _exit_codes(ranks) == [0]
        return False
    (code,) = _exit_codes(ranks)
    if code == 0:
        return False  # the signal came after the last step
    if code == -number and max(losses(folder)) == STEPS:
        return False  # or when training had ended and given signals back: they do what they do to any process
    assert code == 85
    event = read_events(folder)[-1]
    assert (event["event"], event["signal"], event["exit_code"]) == ("preempted", number.name, 85)
    assert event["step"] == max(losses(folder))
    path, skipped = newest_checkpoint(folder / "saved")
    assert (str(path), skipped) == (event["checkpoint"], [])
    assert CheckpointDirectories().load_checkpoint(path)["global_step"] == event["step"]
    return True


def _assert_as_whole(folder: Path, whole: Path) -> None:
    assert losses(folder) == losses(whole)  # to the last bit
    ours, theirs = torch.load(folder / "weights.pt"), torch.load(whole / "weights.pt")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_interruptions_change_nothing(arguments, whole, tmp_path):
    rng = random.Random(0)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        assert _interrupt(tmp_path, arguments, number, rng.uniform(0, 0.3))
    Ranks(train, world_size=1, folder=tmp_path, **arguments).wait()
    _assert_as_whole(tmp_path, whole)


def test_signals_that_do_not_stop_coming_change_nothing(arguments, tmp_path):
    """Schedulers and launchers send several, also when the run is saved and the process is on its way out."""
    ranks = _start(tmp_path, arguments)
    (process,) = ranks.processes
    sent = 0
    with suppress(ProcessLookupError):  # it ends between the question and the signal
        while process.is_alive() and sent < 10_000:
            os.kill(process.pid, signal.SIGTERM)
            sent += 1
            time.sleep(0.002)
    assert _exit_codes(ranks) == [85]
    assert sent > 10
    assert [event["event"] for event in read_events(tmp_path)] == ["preempted"]


@pytest.mark.slow
def test_thirty_interruptions_change_nothing(arguments, whole, tmp_path):
    rng, hits, run = random.Random(1), 0, 0
    while hits < 30:
        folder, run = tmp_path / str(run), run + 1
        folder.mkdir()
        while _interrupt(folder, arguments, rng.choice((signal.SIGTERM, signal.SIGUSR1)), rng.uniform(0, 0.5)):
            hits += 1
        if max(losses(folder)) < STEPS or not (folder / "weights.pt").exists():
            Ranks(train, world_size=1, folder=folder, **arguments).wait()
        _assert_as_whole(folder, whole)
    print(f"{hits} interruptions of {run} runs")


@pytest.mark.slow
def test_a_signal_to_one_rank_of_two_ends_both_at_the_same_step(arguments, tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "interrupted"
    for path in (whole, folder):
        path.mkdir()
    Ranks(train, world_size=2, folder=whole, **arguments).wait()
    ranks = _start(folder, arguments, world_size=2)
    os.kill(ranks.processes[1].pid, signal.SIGTERM)
    assert _exit_codes(ranks) == [85, 85]
    assert max(losses(folder, 0)) == max(losses(folder, 1)) < STEPS
    Ranks(train, world_size=2, folder=folder, **arguments).wait()
    _assert_as_whole(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_the_command_exits_with_the_code(arguments, tmp_path, devices):
    """With two devices Lightning starts the second process, and would kill the first one after a failure of that."""
    options = {f"data.{name}": value for name, value in arguments["data"].items() if name not in ("base",)}
    del options["data.num_world_tokens"], options["data.world_image_size"]
    options |= {f"model.{name}": value for name, value in arguments["model"].items()}
    options |= {"trainer.devices": devices, "trainer.accelerator": "cpu", "trainer.default_root_dir": tmp_path}
    options |= {"data.micro_batches_per_step": devices, "checkpoint.every_n_train_steps": 1000000}
    stages = '{"only": {"learning_rates": {"world_projector": 0.01}, "max_steps": 100000}}'
    command = [sys.executable, "-m", "theworld", "fit", f"--model.stages={stages}", "--trainer.log_every_n_steps=1"]
    command += [f"--{name}={value}" for name, value in options.items()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(lambda: any(tmp_path.rglob("events.out.tfevents*")) and process.poll() is None, process)
        time.sleep(4)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 85
    finally:
        process.kill()
    (event,) = read_events(tmp_path)
    assert (event["event"], event["signal"]) == ("preempted", "SIGUSR1")
    assert newest_checkpoint(tmp_path / "checkpoints")[1] == []


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, f"exit code {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Broadcasts(Callback):
    """Counts the broadcasts of training, in place of PyTorch's function in this process."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0

    def on_train_start(self, trainer, pl_module):
        broadcast = torch.distributed.broadcast

        def counted(*args, **kwargs):
            self.count += 1
            return broadcast(*args, **kwargs)

        torch.distributed.broadcast = counted

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        (self.folder / f"broadcasts-{trainer.global_rank}").write_text(str(self.count))


def counting_run(*, folder: Path, handled: bool, **arguments: object) -> None:
    preemption = Preemption() if handled else Callback()
    train(folder=folder, callbacks=(Broadcasts(folder),), preemption=preemption, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("handled", [True, False])
def test_no_micro_batch_begins_with_a_broadcast(arguments, tmp_path, handled):
    """Lightning's, which the host would wait for; without the callback it is there (control)."""
    Ranks(counting_run, world_size=2, folder=tmp_path, handled=handled, **arguments).wait()
    count = int((tmp_path / "broadcasts-0").read_text())
    assert count == (0 if handled else 2 * STEPS)  # two micro-batches a step and rank


class Stuck(Callback):
    """Is told to go in its second step, and does not come out of it."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)


def stuck_run(*, world_size: int, folder: Path, errors: Path, **arguments: object) -> None:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    preemption = Preemption(grace_seconds=0.5)
    train(world_size=world_size, folder=folder, callbacks=(Stuck(),), preemption=preemption, **arguments)


def test_a_step_that_does_not_end_is_left_after_the_grace(arguments, tmp_path):
    ranks = Ranks(stuck_run, world_size=1, folder=tmp_path, errors=tmp_path / "errors.txt", **arguments)
    assert _exit_codes(ranks) == [85]
    (event,) = read_events(tmp_path)
    assert (event["event"], event["step"], event["grace_seconds"]) == ("preemption_overdue", 1, 0.5)
    assert "in on_before_optimizer_step" in (tmp_path / "errors.txt").read_text()

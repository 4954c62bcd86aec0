"""Dead, stopped and stuck ranks: who is named, with which code the others exit, and how soon."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lightning.pytorch import Callback

from tests.training.conftest import DATA, MODEL, one_stage
from tests.training.preempted_run import train
from tests.training.ranks import Ranks
from theworld.training.callbacks.watchdog import Watchdog
from theworld.training.events import read_events
from theworld.training.heartbeats import Beat, HeartbeatFiles, Verdict, Watch

DEAD_AFTER = 3.0


class Trouble(Callback):
    """Rank 1 dies, stands still, sleeps or fails in its third step; the others wait for its gradient."""

    def __init__(self, kind: str):
        self.kind = kind

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if trainer.global_rank != 1 or trainer.global_step != 2:
            return
        if self.kind in ("SIGKILL", "SIGSTOP"):
            os.kill(os.getpid(), signal.Signals[self.kind])
        if self.kind == "error":
            raise OSError("the disk of rank 1 is gone")
        time.sleep(600)


def troubled(*, world_size: int, folder: Path, kind: str, stuck_after: float, **arguments: object) -> None:
    errors = os.open(folder / f"errors-{os.environ['LOCAL_RANK']}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(errors, 2)
    watchdog = Watchdog(dead_after=DEAD_AFTER, stuck_after=stuck_after)
    train(world_size=world_size, folder=folder, callbacks=(watchdog, Trouble(kind)), **arguments)


@pytest.fixture
def run(base, osd, tmp_path):
    """Exit codes of both ranks, and how long the first one took from the trouble on."""
    rows = {name: path for name, path in osd.items() if name.startswith("train")}
    arguments = {"data": {"base": base} | DATA | rows, "model": {"base": base} | MODEL}

    def until_the_end(kind: str, stuck_after: float = 600) -> tuple[list[int | None], float]:
        ranks = Ranks(troubled, world_size=2, folder=tmp_path, kind=kind, stuck_after=stuck_after, **arguments)
        ledger = tmp_path / "losses-1.jsonl"
        while not (ledger.exists() and '"step": 2' in ledger.read_text()) and ranks.running:
            time.sleep(0.01)
        began = time.monotonic()
        ranks.processes[0].join(60)
        seconds = time.monotonic() - began
        if kind != "SIGSTOP":
            ranks.processes[1].join(60)
        codes = [process.exitcode for process in ranks.processes]
        ranks.kill()
        return codes, seconds

    return until_the_end


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "other"), [("SIGKILL", -9), ("SIGSTOP", None)])
def test_a_dead_or_stopped_rank_is_named_and_the_other_exits_in_time(run, tmp_path, kind, other):
    """1 if gloo tells it of the lost connection first, which it does not while the dead rank's worker holds it open."""
    found, seconds = run(kind)
    assert found in ([86, other], [1, other])
    assert seconds < 3 * DEAD_AFTER
    (event,) = read_events(tmp_path)
    assert (event["event"], event["ranks"], event["rank"]) == ("rank_silent", [1], 0)
    assert event["seconds"] >= DEAD_AFTER
    errors = (tmp_path / "errors-0.txt").read_text()
    assert "rank 0: rank_silent" in errors
    assert found[0] == 1 or "most recent call first" in errors  # its stacks


@pytest.mark.slow
def test_a_rank_that_sleeps_is_named_and_both_exit(run, tmp_path):
    found, seconds = run("sleep", stuck_after=DEAD_AFTER)
    assert found == [86, 86]
    assert seconds < 3 * DEAD_AFTER
    events = read_events(tmp_path)
    assert {event["event"] for event in events} <= {"stuck", "rank_failed", "rank_silent"}
    assert all(event["ranks"] == [1] for event in events)
    assert "in on_before_zero_grad" in (tmp_path / "errors-1.txt").read_text()


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_others(run, tmp_path):
    found, seconds = run("error")
    assert found == [86, 1]
    assert seconds < 3 * DEAD_AFTER
    assert {(event["event"], *event["ranks"]) for event in read_events(tmp_path)} == {("rank_failed", 1)}


class Sleep(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(0.2)


def test_a_healthy_run_is_left_alone(make_module, make_data, make_trainer, tmp_path):
    watchdog = Watchdog(dead_after=5, stuck_after=5)
    make_trainer(watchdog, Sleep()).fit(make_module(stages=one_stage(3, world_projector=1e-2)), datamodule=make_data())
    assert [event["event"] for event in read_events(tmp_path)] == ["stage_finished"]
    assert watchdog._thread is None


@pytest.fixture
def watch(tmp_path):
    """Three ranks over real files, and a clock that the test turns."""
    files = HeartbeatFiles(tmp_path, "now")

    def make(rank: int = 0) -> Watch:
        return Watch(rank, 3, files.read, dead_after=10, stuck_after=100, began=0)

    return files, make


def _turn(files: HeartbeatFiles, watch: Watch, beats: dict[int, list[Beat]]) -> list[Verdict | None]:
    """A look a second, after each rank in `beats` has written its next beat."""
    verdicts = []
    for second in range(len(next(iter(beats.values())))):
        for rank, of_rank in beats.items():
            files.write(rank, of_rank[second])
        verdicts.append(watch.look(second, beats[0][second]))
    return verdicts


def _alive(seconds: int, **changes: object) -> list[Beat]:
    return [replace(Beat(run="now"), beat=n, progress=n, **changes) for n in range(seconds)]


def test_who_stops_beating_is_silent(watch):
    files, make = watch
    stopped = [*_alive(5), *[_alive(5)[-1]] * 15]
    verdicts = _turn(files, make(), {0: _alive(20), 1: _alive(20), 2: stopped})
    first = next(second for second, verdict in enumerate(verdicts) if verdict is not None)
    assert first == 4 + 10 + 1
    assert verdicts[first] == Verdict("rank_silent", (2,), 11)
    assert _turn(files, make(), {0: _alive(30), 1: _alive(30), 2: _alive(30)}) == [None] * 30  # control


def test_files_of_an_earlier_run_are_no_sign_of_life(watch):
    files, make = watch
    earlier = [replace(beat, run="earlier") for beat in _alive(20)]
    verdicts = _turn(files, make(), {0: _alive(20), 1: _alive(20), 2: earlier})
    assert verdicts[11] == Verdict("rank_silent", (2,), 11)


def test_who_failed_while_others_run_is_named(watch):
    files, make = watch
    verdicts = _turn(files, make(), {0: _alive(20), 1: [*_alive(5), *_alive(15, state="failed")], 2: _alive(20)})
    assert next(verdict for verdict in verdicts if verdict is not None) == Verdict("rank_failed", (1,), 11)
    assert make().look(0, Beat(run="now")) is None


def test_others_follow_the_judgement_of_the_main_process_at_once(watch):
    files, make = watch
    files.write(0, Beat(run="now", state="failed", accused=(2,)))
    verdict = make(rank=1).look(1, Beat(run="now"))
    assert verdict is not None
    assert verdict.ranks == (2,)


def test_the_slowest_rank_is_to_blame_when_nothing_goes_on(watch):
    files, make = watch
    waiting = [replace(beat, progress=min(beat.progress, 8)) for beat in _alive(120)]
    slow = [replace(beat, progress=min(beat.progress, 7)) for beat in _alive(120)]
    verdicts = _turn(files, make(), {0: waiting, 1: slow, 2: waiting})
    assert next(verdict for verdict in verdicts if verdict is not None) == Verdict("stuck", (1,), 101)


def test_a_watcher_that_stood_still_itself_blames_nobody(watch):
    """As when a scheduler suspends the whole job."""
    files, make = watch
    watcher = make()
    _turn(files, watcher, {0: _alive(5), 1: _alive(5), 2: _alive(5)})
    assert watcher.look(1000, _alive(5)[-1]) is None
    assert watcher.look(1011, _alive(5)[-1]) is None  # another gap
    assert [watcher.look(1012 + second, _alive(5)[-1]) is None for second in range(11)] == [True] * 10 + [False]


@pytest.mark.parametrize("settings", [{"dead_after": 0}, {"stuck_after": -1}, {"exit_code": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"found {name}={settings[name]}"):
        Watchdog(**settings)

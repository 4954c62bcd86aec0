"""Folders of runs and their execution: what is finished stays finished, what changed is refused, what fails is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from experiments.ablations.display import Display
from experiments.ablations.execute import Job, execute
from experiments.ablations.folder import PREDICTIONS, SCORES, SUMMARY, RunFolder

CONFIG = {"model": {"rate": 0.1}, "trainer": {"default_root_dir": "anywhere", "precision": "32-true"}}


def folder_of(path: Path, *, rate: float = 0.1, order: str = "first") -> RunFolder:
    return RunFolder(path, CONFIG | {"model": {"rate": rate}}, order)


def answered(folder: RunFolder, *, accuracy: float = 0.5) -> None:
    """As `theworld fit` leaves it."""
    folder.path.mkdir(parents=True, exist_ok=True)
    for name in (PREDICTIONS, SCORES):
        (folder.path / name).write_text("{}\n")
    (folder.path / SUMMARY).write_text(json.dumps({"rows": {"overall": {"accuracy": accuracy}}}))


def test_a_run_is_finished_when_its_result_is_written(tmp_path):
    folder = folder_of(tmp_path / "run")
    with folder.locked():
        folder.prepare()
    assert folder.result() is None
    answered(folder)
    assert folder.result() is None
    (folder.path / "events.jsonl").write_text('{"event": "resumed"}\n{"event": "stage_exported"}\n')
    folder.finish(seconds=1.26)
    found = folder_of(tmp_path / "run").result()
    assert found is not None
    assert (found["seconds_of_last_process"], found["resumes"]) == (1.3, 1)
    assert str(tmp_path / "run") in (folder.path / "fit.yaml").read_text()
    assert not list(folder.path.glob("*.draft"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.2}, r"- config: model.rate: 0.1\n  \+ config: model.rate: 0.2\nRestore them"),
        ({"order": "second"}, r"- order: sha256: first\n  \+ order: sha256: second"),
    ],
)
def test_a_folder_of_other_settings_is_refused(tmp_path, change, message):
    folder = folder_of(tmp_path)
    folder.prepare()
    answered(folder)
    folder.finish(seconds=1)
    other = folder_of(tmp_path, **change)
    for refused in (other.check, other.prepare, other.result):
        with pytest.raises(ValueError, match=message):
            refused()


def test_a_result_of_other_code_is_refused(tmp_path, monkeypatch):
    folder_of(tmp_path).prepare()
    monkeypatch.setattr("experiments.ablations.folder.code", lambda: {"source_sha256": "new"})
    with pytest.raises(ValueError, match=r"\+ code: source_sha256: new"):
        folder_of(tmp_path).check()


def test_answers_that_were_changed_after_the_run_are_refused(tmp_path):
    folder = folder_of(tmp_path)
    folder.prepare()
    answered(folder)
    folder.finish(seconds=1)
    (tmp_path / SCORES).write_text("{ }\n")
    with pytest.raises(ValueError, match="scores.jsonl: changed since the run ended"):
        folder.result()


def test_two_processes_cannot_hold_a_folder(tmp_path):
    with (
        folder_of(tmp_path).locked(),
        pytest.raises(ValueError, match="found a process that is still at this run"),
        folder_of(tmp_path).locked(),
    ):
        pass
    with folder_of(tmp_path).locked():
        pass


class Scripted(Job):
    """Runs a line of Python in place of `theworld fit`."""

    script = ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", self.script]


def job_of(path: Path, arm: str, script: str) -> Scripted:
    job = Scripted(arm=arm, seed=0, folder=folder_of(path / f"{arm}-seed0"))
    job.script = script
    return job


def test_jobs_run_side_by_side_and_a_failure_is_told_alone(tmp_path):
    meet = "import time,pathlib;p=pathlib.Path({own!r});p.touch();q=pathlib.Path({other!r})\n"
    meet += "while not q.exists(): time.sleep(.01)"
    places = [str(tmp_path / name) for name in "ab"]
    jobs = [
        job_of(tmp_path, "done", "raise SystemExit('not to be run')"),
        job_of(tmp_path, "one", meet.format(own=places[0], other=places[1])),
        job_of(tmp_path, "two", meet.format(own=places[1], other=places[0])),
        job_of(tmp_path, "bad", "print('why'); raise SystemExit(3)"),
    ]
    for job in jobs:
        answered(job.folder, accuracy=0.625)
    jobs[0].state = "finished"
    seen: list[tuple[str, str]] = []
    execute(jobs, side_by_side=2, shown=lambda job: seen.append((job.name, job.state)) if job is not None else None)
    assert [job.state for job in jobs] == ["finished", "finished", "finished", "failed"]
    assert seen[:2] == [("one-seed0", "running"), ("two-seed0", "running")]
    assert ("bad-seed0", "failed") in seen
    assert "done-seed0" not in {name for name, _ in seen}
    assert jobs[3].exit_code == 3
    assert "why" in (jobs[3].folder.path / "log.txt").read_text()
    assert jobs[3].folder.result() is None
    assert jobs[1].folder.result() is not None
    display = Display(jobs, Console(width=100, record=True))
    display.console.print(display.table())
    text = display.console.export_text()
    assert "3 finished, 1 failed" in text
    assert "62.5 % right, finished before" in text
    assert "FAILED, exit status 3" in text


def test_a_run_that_outlives_its_grid_is_noticed_before_anything_starts(tmp_path):
    jobs = [job_of(tmp_path, "first", "pass"), job_of(tmp_path, "second", "pass")]
    with jobs[1].folder.locked(), pytest.raises(ValueError, match="second-seed0: found a process that is still at"):
        execute(jobs, side_by_side=1, shown=lambda job: None)
    assert [job.state for job in jobs] == ["waiting", "waiting"]


def test_a_run_holds_its_folder_when_the_grid_is_gone(tmp_path):
    job = job_of(tmp_path, "orphan", "import time; time.sleep(600)")
    job.start()
    job._open.close()  # what the system does to a grid that is killed
    with pytest.raises(ValueError, match="perhaps of a grid that was killed"), job.folder.locked():
        pass
    job.stop()
    with job.folder.locked():
        pass


def test_what_runs_is_asked_to_end_when_the_grid_ends(tmp_path):
    job = job_of(tmp_path, "long", "import time; time.sleep(600)")

    def interrupt(shown: Job | None) -> None:
        if shown is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute([job], side_by_side=1, shown=interrupt)
    with job.folder.locked():  # which its process held
        pass
    assert job.folder.result() is None

"""A grid that is killed, its runs with it, goes on where it was when the same command is given again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from theworld.training.events import read_events

ROOT = Path(__file__).parents[2]
STAGES = {
    "vision": {"learning_rates": {"world_projector": 1e-3, "vision": 1e-4}, "max_steps": 2},
    "language": {"learning_rates": {"world_projector": 1e-3, "vision": 1e-4, "language": 1e-3}, "max_steps": 28},
}


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """Two arms, one seed, 30 steps, a checkpoint every 3; one run at a time."""
    folder = tmp_path_factory.mktemp("grid")
    scenes = {"num_train": 24, "num_val": 1, "num_test": 2, "cache_dir": str(folder / "scenes")}
    small = {"model": {"stages": STAGES}, "data": {"synthetic": scenes}, "checkpoint": {"every_n_train_steps": 3}}
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    (folder / "channel.yaml").write_text("# Channel: another cut?\nmodel: {world_projection_mode: channel}\n")
    budget = [str(ROOT / "experiments" / "ablations" / "budget.yaml"), "small.yaml"]
    arms = {"world": None, "channel": "channel.yaml"}
    file = folder / "grid.yaml"
    values = {"budget": budget, "arms": arms, "reference": "world", "seeds": [0], "side_by_side": 1}
    file.write_text(yaml.safe_dump(values, sort_keys=False))  # the order of the arms is that of the runs
    return file


def started(grid: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "experiments.ablations.run", f"--grid={grid}", f"--output={output}"]
    log = output.with_suffix(".log").open("ab")
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=log, stderr=log)


def wait_for(found: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 300
    while not found():
        assert process.poll() is None, "the grid ended before it was killed"
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_grid_goes_on_and_ends_as_one_that_was_not(grid, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first, second = (killed / "runs" / f"{arm}-seed0" for arm in ("world", "channel"))
    process = started(grid, killed)
    wait_for(lambda: (first / "result.json").exists(), process)
    wait_for(lambda: len(list((second / "checkpoints").glob("*step=*.ckpt"))) > 0, process)
    os.killpg(process.pid, signal.SIGKILL)  # the grid and, because they are in its session, its runs
    process.wait()
    assert not (second / "result.json").exists()
    finished = (first / "result.json").stat().st_mtime_ns, (first / "log.txt").read_bytes()
    time.sleep(0.5)  # for the system to close what the killed run held

    assert started(grid, killed).wait(timeout=300) == 0, killed.with_suffix(".log").read_text()
    assert ((first / "result.json").stat().st_mtime_ns, (first / "log.txt").read_bytes()) == finished
    assert len(read_events(second, "resumed")) == 1
    assert json.loads((second / "result.json").read_text())["resumes"] == 1
    assert "`channel`" in (killed / "report.md").read_text()

    assert started(grid, whole).wait(timeout=300) == 0, whole.with_suffix(".log").read_text()
    for arm in ("world", "channel"):
        texts = [(output / "runs" / f"{arm}-seed0" / "predictions.jsonl").read_bytes() for output in (killed, whole)]
        assert texts[0] == texts[1]


@pytest.mark.slow
def test_a_changed_grid_is_refused_with_what_changed(grid, tmp_path):
    output = tmp_path / "out"
    process = started(grid, output)
    wait_for(lambda: (output / "runs" / "world-seed0" / "settings.json").exists(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    changed = grid.with_name("changed.yaml")
    values = yaml.safe_load(grid.read_text())
    other = yaml.safe_load((grid.parent / "small.yaml").read_text()) | {"trainer": {"gradient_clip_val": 2.0}}
    (grid.parent / "other.yaml").write_text(yaml.safe_dump(other))
    changed.write_text(yaml.safe_dump(values | {"budget": [values["budget"][0], "other.yaml"]}))
    assert started(changed, output).wait(timeout=120) == 1
    said = output.with_suffix(".log").read_text()
    assert "- config: trainer.gradient_clip_val: 1.0\n  + config: trainer.gradient_clip_val: 2.0" in said

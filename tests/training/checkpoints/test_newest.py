"""The newest checkpoint that verifies, and what is said of the others; one run in a directory."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest
import torch

from theworld.training.checkpoints.directory import MANIFEST, sweep
from theworld.training.checkpoints.lock import lock_directory
from theworld.training.checkpoints.newest import LATEST, link_checkpoint, name_latest, newest_checkpoint
from theworld.training.checkpoints.plugin import CONTENT, CheckpointDirectories

IO = CheckpointDirectories()


@pytest.fixture
def three(tmp_path):
    """Written in the order 1, 3, 2; copied in another one, so that the folders' times say something else."""
    paths = {}
    for step in (1, 3, 2):
        paths[step] = tmp_path / f"step={step}.ckpt"
        IO.save_checkpoint({"global_step": step}, paths[step])
        name_latest(paths[step])
        os.utime(paths[step], ns=(0, (10 - step) * 10**9))
    return paths


def set_times(paths, time):
    """Checkpoints as they were before the manifest said when."""
    for path in paths:
        manifest = json.loads((path / MANIFEST).read_text())
        del manifest["sealed_ns"]
        (path / MANIFEST).write_text(json.dumps(manifest))
        os.utime(path, ns=(0, time(path)))


def damage(path):
    content = bytearray((path / CONTENT).read_bytes())
    content[len(content) // 2] ^= 1
    (path / CONTENT).write_bytes(content)


def test_the_one_written_last_is_the_newest(three, tmp_path):
    assert newest_checkpoint(tmp_path) == (three[2], [])
    assert (tmp_path / LATEST).read_text() == "step=2.ckpt\n"


def test_a_clock_that_was_set_back_makes_nothing_older(three, tmp_path, monkeypatch):
    """Or the clock of another machine, on which the job goes on: else it would begin from the same one every time."""
    hour = 3600 * 10**9
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - hour)
    for step in (4, 3):  # one of them in place of an older one
        path = tmp_path / f"step={step}.ckpt"
        IO.save_checkpoint({"global_step": step}, path)
        assert newest_checkpoint(tmp_path) == (path, [])


@pytest.mark.parametrize("sealed", ["1e999", "-1e999", "NaN", '"x"', "[]", "9" * 5000])
def test_a_time_that_is_none_keeps_nothing_else_from_being_found(three, tmp_path, sealed):
    manifest = three[1] / MANIFEST
    manifest.write_text(re.sub(r'"sealed_ns": \d+', f'"sealed_ns": {sealed}', manifest.read_text()))
    os.utime(three[1], ns=(0, 0))
    assert newest_checkpoint(tmp_path)[0] == three[2]
    IO.save_checkpoint({"global_step": 5}, tmp_path / "step=5.ckpt")
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "step=5.ckpt"


def test_a_pipe_in_place_of_a_manifest_is_not_waited_for(three, tmp_path):
    (three[2] / MANIFEST).unlink()
    os.mkfifo(three[2] / MANIFEST)
    search = "import sys, pathlib; from theworld.training.checkpoints.newest import newest_checkpoint as newest; "
    search += "print(newest(pathlib.Path(sys.argv[1]))[0])"
    found = subprocess.run([sys.executable, "-c", search, tmp_path], capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == str(three[3])


def test_without_a_time_in_the_manifest_the_folder_has_one(three, tmp_path):
    set_times(three.values(), lambda path: 10**9 if path == three[1] else 0)
    assert newest_checkpoint(tmp_path) == (three[1], [])


def test_latest_decides_between_equal_times_and_only_then(three, tmp_path):
    set_times(three.values(), lambda path: 0)
    for path in three.values():
        name_latest(path)
        assert newest_checkpoint(tmp_path) == (path, [])
    (tmp_path / LATEST).write_text("../elsewhere.ckpt\n")
    assert newest_checkpoint(tmp_path)[0] in three.values()


def test_the_one_before_is_taken_and_the_reason_said(three, tmp_path):
    damage(three[2])
    path, (reason,) = newest_checkpoint(tmp_path)
    assert path == three[3]
    assert re.search(f"{re.escape(str(three[2]))}/{CONTENT}: found sha256 .*, expected", reason)
    (three[3] / MANIFEST).unlink()
    path, reasons = newest_checkpoint(tmp_path)
    assert path == three[1]
    assert len(reasons) == 2


def test_where_none_verifies_it_does_not_begin_anew_in_silence(three, tmp_path):
    for path in three.values():
        damage(path)
    with pytest.raises(ValueError, match="found 3 checkpoints, expected at least one that verifies"):
        newest_checkpoint(tmp_path)


def test_where_nothing_lies_there_is_none(tmp_path):
    assert newest_checkpoint(tmp_path / "none") == (None, [])
    (tmp_path / "last.ckpt").symlink_to("gone")
    (tmp_path / "notes.txt").write_text("")
    assert newest_checkpoint(tmp_path) == (None, [])


def test_a_link_leads_to_the_last_and_takes_no_checkpoint_away(three, tmp_path):
    link = tmp_path / "last.ckpt"
    for step in (1, 2):
        link_checkpoint(link, three[step])
        assert IO.load_checkpoint(link)["global_step"] == step
    IO.save_checkpoint({"global_step": 9}, link)  # in place of the link, not of what it leads to
    assert [IO.load_checkpoint(path)["global_step"] for path in (link, three[2])] == [9, 2]
    link_checkpoint(link, link)
    link_checkpoint(link, three[3])
    assert IO.load_checkpoint(link)["global_step"] == 3
    assert IO.load_checkpoint(tmp_path / "last.replaced.ckpt")["global_step"] == 9


def test_a_single_file_is_not_taken_unasked(three, tmp_path):
    torch.save({"global_step": 9}, tmp_path / "step=9.ckpt")
    path, (reason,) = newest_checkpoint(tmp_path)
    assert path == three[2]
    assert "single file has no hashes" in reason


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path):
    folder = tmp_path / "checkpoints"
    first = lock_directory(folder)
    command = (
        f"from pathlib import Path; from theworld.training.checkpoints.lock import lock_directory; "
        f"lock_directory(Path({str(folder)!r}))"
    )
    refused = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert refused.returncode == 1
    assert f"(host {socket.gethostname()}, process {os.getpid()})" in refused.stderr
    sweep(folder)
    first.close()
    subprocess.run([sys.executable, "-c", command], check=True)  # control: it was the lock
    lock_directory(folder).close()  # and the dead process holds nothing

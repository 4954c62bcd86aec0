"""A small version of `experiments/faults`: a few kills of runs that save through the real callback."""

from __future__ import annotations

import pytest

from experiments.faults.counting_run import count, loaded
from experiments.faults.save_kills import SAVED_EVERY, kill
from theworld.training.checkpoints.plugin import CheckpointDirectories


@pytest.mark.parametrize("saves", ["sync", "async"])
def test_kills_in_and_around_saves(tmp_path, saves):
    folder, scratch = tmp_path / "run", tmp_path / "tmpdir"
    folder.mkdir()
    scratch.mkdir()
    calls = [None, ("write", 5), ("replace", 3), None]
    kills = [kill(folder, scratch, saves=saves, place="", call=call, seconds=0.05) for call in calls]
    assert [(k.torn, k.skipped, k.in_tmpdir) for k in kills] == [(0, 0, 0)] * 4
    assert max(k.lost for k in kills) <= SAVED_EVERY * (2 if saves == "async" else 1)
    assert kills[-1].loaded > kills[0].loaded  # control: it went on


def test_a_checkpoint_of_two_steps_would_be_seen(tmp_path, monkeypatch):
    """Positive control: what `torn` looks at."""
    count(world_size=1, folder=tmp_path, async_save=False, saved_every=3, steps=3)
    assert loaded(tmp_path) == (3, True, 0)
    read = CheckpointDirectories.load_checkpoint

    def mixed(self, path):
        content = read(self, path)
        content["state_dict"]["weights.1"][7] -= 1
        return content

    monkeypatch.setattr(CheckpointDirectories, "load_checkpoint", mixed)
    assert loaded(tmp_path) == (3, False, 0)

"""The measurements of world sources run in their small form; what they measure needs a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from experiments.world_sources import cache_rate, sources


def test_every_source_is_measured(tmp_path, monkeypatch):
    found = tmp_path / "sources.json"
    options = ["--tiny", "--batch=2", "--repeats=1", "--steps=2", f"--output={found}"]
    monkeypatch.setattr(sys, "argv", ["sources", *options])
    sources.main()
    shapes = {name: entry["latents"] for name, entry in json.loads(found.read_text()).items() if " at a time" in name}
    frames = {f"rollout k={k}, {count} at a time": [count, 16, 1 + k, 8, 8] for k in (1, 4, 8) for count in (1, 2)}
    hidden = {f"hidden states of block 1, {count} at a time": [count, 48, 1, 4, 4] for count in (1, 2)}
    assert shapes == {f"frame, {count} at a time": [count, 16, 1, 8, 8] for count in (1, 2)} | frames | hidden


@pytest.mark.slow
def test_the_rate_of_both_caches_is_measured(tmp_path, monkeypatch):
    """Each cache is begun anew every time, or nothing would be written the second time."""
    monkeypatch.setattr(cache_rate, "FEW", {"frame": 1, "rollout k=1": 1})
    monkeypatch.setattr(cache_rate, "MORE", {"frame": 2, "rollout k=1": 2})
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(sys, "argv", ["rate", "--tiny", f"--folder={tmp_path}", f"--output={tmp_path / 'rate.json'}"])
    cache_rate.main()
    found = json.loads((tmp_path / "rate.json").read_text())
    assert [found[name]["entries"] for name in cache_rate.FEW] == [[1, 2], [1, 2]]

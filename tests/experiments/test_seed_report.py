"""The seed's two configurations at the tiny model's size: the script runs, and the parts add up in both ways."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_both_configurations_in_both_ways(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "experiments/speed")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "experiments.profiling.seed_report", "--tiny"]
    places = [f"--folder={tmp_path / 'profiles'}", f"--results={tmp_path / 'results'}"]
    subprocess.run([*command, *places], cwd=ROOT, env=environment, check=True, capture_output=True)
    table = (tmp_path / "results" / "seed_report.md").read_text()
    assert "| the seed report, GiB | 89.92 |  | 47.18 |  |" in table
    assert (tmp_path / "results" / "compare.html").is_file()
    logits = {}
    for name in ("projection_as_the_seed", "projection", "gemma_as_the_seed", "gemma"):
        memory = json.loads((tmp_path / "results" / f"{name}.json").read_text())["memory"]
        assert memory["breakdown_sum_bytes"] == memory["peak_allocated_bytes"]
        assert memory["category_bytes"].get("other", 0) <= 0.03 * memory["peak_allocated_bytes"]
        logits[name] = memory["category_bytes"]["logits"]
    # All rows in float32, several times over, against the rows of the targets.
    assert logits["projection_as_the_seed"] > 3 * logits["projection"]
    assert logits["gemma_as_the_seed"] > 2 * logits["gemma"]

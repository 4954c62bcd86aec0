"""Every shipped profile parses, says what it is, trains what its stage trains, and runs, at the tiny base's size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from theworld.cli import main
from theworld.profiling.reports.schema import read_report
from theworld.profiling.watch import Plan
from theworld.training.stages import LearningRates, Schedule, Stage

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "profile").glob("*.yaml"))
STAGES = {"projection": "stage1", "vision": "stage2", "language": "stage3"}
TINY = [
    *("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--model.attention_backend=sdpa"),
    *("--model.compile_layers=false", "--model.dtype=float32", "--model.optimizer=adamw", "--data.num_workers=0"),
    *("--model.world_image_size=64", "--model.cosmos_model=null", "--trainer.enable_progress_bar=false"),
    *("--data.synthetic.num_train=6", "--data.synthetic.turns_per_row=3", "--profile.warmup_steps=1"),
    *("--data.token_budget=800", "--data.max_seq_length=400", "--profile.active_steps=1", "--profile.traced_steps=1"),
]
"""Settings under which a profile of true dimensions runs on two cores."""


def test_the_configs_are_found():
    names = {path.stem for path in CONFIGS}
    assert names == {"gemma", "theworld_projection", "theworld_vision", "theworld_language", "tiny"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_parses_and_says_what_it_is(path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["theworld"])
    with pytest.raises(SystemExit) as stop:
        main(["profile", f"--config={path}", "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    stages = {
        name: Stage(**(stage | {"learning_rates": LearningRates(**stage["learning_rates"])}))
        for name, stage in config["model"]["stages"].items()
    }
    counts = {name: config["profile"][name] for name in ("warmup_steps", "active_steps", "traced_steps")}
    assert Schedule(stages).total_steps >= Plan(**counts).total
    assert config["trainer"]["devices"] == 1
    assert config["trainer"]["accumulate_grad_batches"] == config["data"]["micro_batches_per_step"]
    assert config["profile"]["output"] == f"outputs/profile/{path.stem}"
    text = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    for phrase in (f"theworld profile --config configs/profile/{path.name}", "Where the numbers come from:", "Cost:"):
        assert phrase in text


@pytest.mark.parametrize("stage", STAGES)
def test_a_profile_of_a_stage_is_of_that_stage(stage):
    profile = yaml.safe_load((ROOT / "configs" / "profile" / f"theworld_{stage}.yaml").read_text())
    run = yaml.safe_load((ROOT / "configs" / f"{STAGES[stage]}.yaml").read_text())
    assert profile["model"]["stages"] == run["model"]["stages"]
    for key in ("attention_backend", "compile_layers"):
        assert profile["model"][key] == run["model"][key]
    assert profile["trainer"]["precision"] == run["trainer"]["precision"]


@pytest.mark.slow
def test_profiles_run_and_are_compared(tmp_path, monkeypatch):
    """All four, from random weights in the tiny base's shape."""
    monkeypatch.setattr("sys.argv", ["theworld"])
    base = tmp_path / "base"
    subprocess.run([sys.executable, ROOT / "experiments/scaling/random_base.py", base, "--tiny"], check=True)
    places = []
    for path in (path for path in CONFIGS if path.stem != "tiny"):
        places.append(tmp_path / path.stem)
        scenes = f"--data.synthetic.cache_dir={tmp_path / 'scenes'}"
        main(["profile", f"--config={path}", f"--model.base={base}", f"--profile.output={places[-1]}", scenes, *TINY])
        found = read_report(places[-1])
        assert found["memory"]["breakdown_sum_bytes"] == found["memory"]["peak_allocated_bytes"]
        assert found["memory"]["category_bytes"].get("other", 0) < 0.03 * found["memory"]["peak_allocated_bytes"]
        assert ("world_projector" in found["parameters"]) is (path.stem != "gemma")
    main(["profile", "compare", *map(str, places), f"--output={tmp_path / 'compared'}"])
    assert (tmp_path / "compared" / "compare.html").is_file()

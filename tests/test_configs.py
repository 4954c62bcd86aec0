"""Every shipped config of a run parses, says what it is and how to run it, and agrees with its neighbours.

Those of profiles are in `profiling/test_profile_configs.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from theworld.cli import main
from theworld.training.stages import LearningRates, Schedule, Stage

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "profile")
SEPARATE = ("stage1", "stage2", "stage3")
DIFFERENCES = {"small_card": "stage1", "cluster/stage3_fsdp2": "stage3"}
"""Configs that go after another one, and that one."""


def parsed(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def test_the_configs_are_found():
    assert {"tiny", "progressive", *SEPARATE} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_a_config_parses_and_says_what_it_is(path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["theworld"])
    name = str(path.relative_to(ROOT / "configs").with_suffix(""))
    before = [ROOT / "configs" / f"{DIFFERENCES[name]}.yaml"] if name in DIFFERENCES else []
    with pytest.raises(SystemExit) as stop:
        main(["fit", *(f"--config={file}" for file in (*before, path)), "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    stages = {
        name: Stage(**(stage | {"learning_rates": LearningRates(**stage["learning_rates"])}))
        for name, stage in config["model"]["stages"].items()
    }
    Schedule(stages)
    assert all(stage.warmup_steps < stage.max_steps for stage in stages.values())
    devices, accumulate = config["trainer"]["devices"], config["trainer"]["accumulate_grad_batches"]
    assert devices * accumulate == config["data"]["micro_batches_per_step"]

    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    command = " ".join(["theworld fit", *(f"--config {file.relative_to(ROOT)}" for file in (*before, path))])
    assert any(command in line for line in header)
    text = " ".join(header)
    assert "Where the numbers come from:" in text
    assert "Cost:" in text


def test_progressive_is_the_three_stages_in_one_run():
    progressive = parsed(ROOT / "configs" / "progressive.yaml")
    separate = [parsed(ROOT / "configs" / f"{name}.yaml") for name in SEPARATE]
    stages = [stage for config in separate for stage in config["model"]["stages"].items()]
    assert list(progressive["model"]["stages"].items()) == stages
    for config in separate:
        assert config["data"] == progressive["data"]
        different = config["trainer"].keys() ^ progressive["trainer"].keys()
        assert not different
        for key in config["trainer"].keys() - {"default_root_dir"}:
            assert config["trainer"][key] == progressive["trainer"][key]


def test_each_stage_starts_from_the_export_of_the_one_before():
    separate = [parsed(ROOT / "configs" / f"{name}.yaml") for name in SEPARATE]
    for before, after in zip(separate, separate[1:], strict=False):
        (name,) = before["model"]["stages"]
        assert after["model"]["base"] == f"{before['trainer']['default_root_dir']}/export/{name}"


def test_a_small_card_changes_memory_and_nothing_else():
    difference = parsed(ROOT / "configs" / "small_card.yaml")
    assert difference == {"model": {"low_bit_base": True}}  # a file that names stages would drop those before it

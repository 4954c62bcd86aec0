"""`theworld plan` takes the settings of `fit`, needs neither weights nor data, and says what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.training.conftest import write_tiny_base
from theworld.cli import main
from theworld.models.configuration import TheWorldConfig
from theworld.profiling.plan.shape import shape_of
from theworld.training.module import TheWorldModule

ROOT = Path(__file__).parents[3]
RUN = {
    "trainer": {"accelerator": "gpu", "precision": "bf16-mixed", "accumulate_grad_batches": 2},
    "model": {
        "world_image_size": 16,
        "stages": {"projection": {"learning_rates": {"world_projector": 1e-3}, "max_steps": 10}},
    },
    "data": {"max_seq_length": 64, "token_budget": 128, "micro_batches_per_step": 2},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    """A run on a GPU that is not here, from a base that has lost its weights."""
    folder = tmp_path_factory.mktemp("plan")
    write_tiny_base(folder / "base")
    for weights in (folder / "base").rglob("*.safetensors"):
        weights.unlink()
    settings = RUN | {"model": RUN["model"] | {"base": str(folder / "base")}}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return str(folder / "run.yaml")


def plan(*words: str) -> None:
    main(["plan", *words])


def test_a_plan_without_weights_data_or_gpu(config, tmp_path, capsys) -> None:
    output = tmp_path / "plan.json"
    plan("--config", config, "--card=h100", "--memory_gb=[2,24]", "--output", str(output))
    shown = " ".join(capsys.readouterr().out.split())
    assert "shape: config.json of the base" in shown
    assert "typical samples, since the data's index is not here: 2 of 64 tokens (4 world, 4 image, 54 text" in shown
    assert "NVIDIA H100 80GB HBM3:" in shown
    found = json.loads(output.read_text())
    assert found["world_tokens_per_sample"] == 4
    assert found["sample_lengths_tokens"] == [64, 64]
    stage = found["stages"]["projection"]
    as_configured = stage["as_configured"]
    assert sum(as_configured["breakdown_gib"].values()) == pytest.approx(as_configured["allocated_gib"])
    assert stage["parameters"]["trained"] == {"world_projector": stage["parameters"]["all"]["world_projector"]}
    assert stage["tokens_per_step"] == 2 * 128
    assert [card["flags"] for card in stage["cards"]] == [[], []]
    assert stage["expected_seconds_per_step"] > stage["floor_seconds_per_step"] > 0


def test_what_does_not_fit_ends_with_status_1_and_the_fix(config, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        plan("--config", config, "--memory_gb=0.5")
    assert "stage 'projection' as configured needs 0.9 GB on the card" in stop.value.code
    assert "expected at most 0.5 GB; no way to run it that is known here fits" in stop.value.code
    assert "nothing that is known here" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0", "-5", "[]", "[24,0]"])
def test_a_card_without_memory_is_refused(config, size) -> None:
    with pytest.raises(SystemExit) as stop:
        plan("--config", config, f"--memory_gb={size}")
    assert "expected one or more sizes above 0" in stop.value.code


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_planned(config, tmp_path, capsys) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        plan("--config", config, f"--output={tmp_path / 'file' / 'plan.json'}")
    assert "theworld plan: " in stop.value.code
    assert "shape:" not in capsys.readouterr().out


@pytest.mark.parametrize(("devices", "gpus"), [("[0,1]", 2), ("0,1", 2), ("2", 2), ("1,", 1), ("-1", 1)])
def test_gpus_are_those_of_the_run(config, tmp_path, capsys, devices, gpus) -> None:
    output = tmp_path / "new" / "plan.json"
    accumulate = f"--trainer.accumulate_grad_batches={2 // gpus}"
    plan("--config", config, f"--trainer.devices={devices}", accumulate, "--output", str(output))
    found = json.loads(output.read_text())["stages"]["projection"]["as_configured"]
    assert (found["gpus"], found["strategy"]) == (gpus, "ddp" if gpus > 1 else "one device")
    assert ("one is planned" in " ".join(capsys.readouterr().out.split())) == (devices == "-1")


def test_a_sample_that_no_row_holds_is_refused_by_its_number() -> None:
    words = ["--config", str(ROOT / "configs" / "stage1.yaml"), "--model.num_world_steps=1"]
    with pytest.raises(SystemExit) as stop:
        plan(*words)
    assert "max_seq_length is 6144, expected more than num_world_tokens=8192" in stop.value.code
    with pytest.raises(SystemExit) as stop:
        plan(*words, "--data.max_seq_length=8460")
    assert "(8192 world tokens, 256 of the image), expected at most 8444" in stop.value.code


def test_flex_is_refused(config) -> None:
    with pytest.raises(SystemExit) as stop:
        plan("--config", config, "--model.attention_backend=flex")
    assert "found model.attention_backend=flex, expected flash, flash4 or sdpa" in stop.value.code


def test_the_shape_is_that_of_the_base_or_says_that_it_is_not() -> None:
    here, note = shape_of(TheWorldModule(base="theworld-tiny", world_image_size=64))
    assert note == "config.json of the base theworld-tiny"
    assert here.hidden_size == 128
    assert here.num_world_tokens == 64
    away, note = shape_of(TheWorldModule(base="google/gemma-3-4b-it", num_world_steps=2))
    assert note == "preset gemma3-4b, since google/gemma-3-4b-it is not here"
    assert away.to_dict() == TheWorldConfig.preset("gemma3-4b", num_world_steps=2).to_dict()


@pytest.mark.slow
def test_stage_1_fits_a_card_of_16_gb_with_every_layer_recomputed(tmp_path) -> None:
    """True dimensions: what is shipped does not fit, and what is proposed is measured in `experiments/planning`."""
    output = tmp_path / "plan.json"
    with pytest.raises(SystemExit) as stop:
        plan("--config", str(ROOT / "configs" / "stage1.yaml"), "--memory_gb=16", "--output", str(output))
    assert stop.value.code.endswith("add --model.stages.projection.recompute=full")
    stage = json.loads(output.read_text())["stages"]["projection"]
    assert stage["cards"][0]["recommended"]["needs_gb"] <= 16
    assert stage["parameters"]["trained"] == {"world_projector": 6_599_680}
    assert 35 < stage["as_configured"]["allocated_gib"] < 45

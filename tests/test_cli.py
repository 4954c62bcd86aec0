"""The command line itself: overrides, links, errors that help, and no import of what a config merely names."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import jsonargparse
import pytest
import yaml

from theworld import cli
from theworld.cli import checkpoint_directory, main, num_world_tokens
from theworld.data.datamodule import OSDDataModule
from theworld.data.synthetic import SyntheticPaths, SyntheticScenes
from theworld.models.configuration import TheWorldConfig
from theworld.training.module import TheWorldModule

TINY = str(Path(__file__).parents[1] / "configs" / "tiny.yaml")
PROGRESSIVE = str(Path(__file__).parents[1] / "configs" / "progressive.yaml")


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["theworld"])  # Lightning warns of pytest's own arguments


@pytest.fixture
def printed_config(capsys):
    def run(*arguments: str) -> dict:
        with pytest.raises(SystemExit) as stop:
            main(["fit", *arguments, "--print_config"])
        assert stop.value.code == 0
        return yaml.safe_load(capsys.readouterr().out)

    return run


@pytest.fixture
def refused(capsys):
    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["fit", *arguments])
        assert stop.value.code != 0
        return capsys.readouterr().err

    return run


def test_one_number_of_one_stage_can_be_overridden(printed_config):
    before = printed_config(f"--config={PROGRESSIVE}")
    after = printed_config(
        f"--config={PROGRESSIVE}",
        "--model.stages.projection.max_steps=2",
        "--model.stages.language.learning_rates.vision=3e-6",
        "--stage_export.enabled=false",
    )
    assert list(after["model"]["stages"]) == ["projection", "vision", "language"]
    before["model"]["stages"]["projection"]["max_steps"] = 2
    before["model"]["stages"]["language"]["learning_rates"]["vision"] = 3e-6
    before["stage_export"]["enabled"] = False
    assert after == before


def test_a_second_file_replaces_the_stages_and_keeps_the_callbacks(printed_config, tmp_path):
    second = tmp_path / "second.yaml"
    second.write_text(
        "model: {stages: {only: {max_steps: 3, learning_rates: {vision: 1.0}}}}\nprogress_bar: {leave: true}\n"
    )
    config = printed_config(f"--config={PROGRESSIVE}", f"--config={second}")
    assert list(config["model"]["stages"]) == ["only"]
    assert config["progress_bar"]["leave"] is True
    assert config["checkpoint"]["save_last"] == "link"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model.stages.projection.lenght=2", "Option 'lenght' is not accepted"),
        ("--model.stages.projection.learning_rates.visoin=1", "visoin"),
        ("--model.learning_rate=1", "unrecognized arguments: --model.learning_rate=1"),
        ("--data.num_world_tokens=4", 'must be given via "model.world_image_size, model.world_projection_mode'),
    ],
)
def test_an_unknown_key_is_refused_by_name(refused, argument, message):
    assert message in refused(f"--config={PROGRESSIVE}", argument)


def test_an_unknown_key_in_a_file_is_refused_by_name(refused, tmp_path):
    typo = tmp_path / "typo.yaml"
    typo.write_text("model: {base: x, bidirectional_wrold: true}\n")
    assert "bidirectional_wrold" in refused(f"--config={typo}")


def test_a_class_outside_the_allowed_packages_is_refused_before_its_import(refused, tmp_path, monkeypatch):
    package = tmp_path / "stranger"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from lightning.pytorch import Callback\nclass Thing(Callback): ...\nprint('imported a stranger')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "stranger.yaml"
    config.write_text("model: {base: x}\ntrainer: {callbacks: [{class_path: stranger.Thing}]}\n")
    message = refused(f"--config={config}")
    assert "Importing 'stranger.Thing' is not allowed" in message
    assert "stranger" not in sys.modules

    # Control: the same config imports it when it is allowed, so the refusal above is what kept it out.
    monkeypatch.setattr(cli, "CONFIGURABLE", [*cli.CONFIGURABLE, "stranger"])
    try:
        with pytest.raises(SystemExit) as stop:
            main(["fit", f"--config={config}", "--print_config"])
        assert stop.value.code == 0
        assert "stranger" in sys.modules
    finally:
        sys.modules.pop("stranger", None)
        jsonargparse.set_parsing_settings(import_path_denylist=["stranger"])


def test_lightning_s_own_classes_are_allowed(printed_config):
    config = printed_config(
        f"--config={PROGRESSIVE}", "--trainer.callbacks+=lightning.pytorch.callbacks.DeviceStatsMonitor"
    )
    assert config["trainer"]["callbacks"][0]["class_path"].endswith("DeviceStatsMonitor")


def test_world_tokens_from_settings_alone():
    assert num_world_tokens(512, "spatial", 0) == 4096
    assert num_world_tokens(224, "spatial", 0) == 784
    assert num_world_tokens(512, "channel", 0) == 16
    assert num_world_tokens(512, "spatial", 2) == 3 * 4096
    for size, mode, steps in product((224, 512), ("spatial", "channel"), (0, 3)):
        settings = {"world_image_size": size, "world_projection_mode": mode, "num_world_steps": steps}
        assert num_world_tokens(*settings.values()) == TheWorldConfig.preset("gemma3-4b", **settings).num_world_tokens


def test_a_token_budget_reaches_model_and_data(refused, printed_config):
    message = refused(f"--config={PROGRESSIVE}", "--model.world_tokens_per_frame=100", "--model.world_image_size=512")
    assert "found world_tokens_per_frame=100, expected one of [4096, 1024, 256, 64, 16, 4, 1]" in message
    config = printed_config(f"--config={PROGRESSIVE}", "--model.world_tokens_per_frame=256")
    assert config["model"]["world_tokens_per_frame"] == 256
    assert num_world_tokens(512, "spatial", 2, 256) == 3 * 256


def test_random_world_tokens_reach_model_and_data(refused):
    arguments = [f"--config={TINY}", "--model.random_world_tokens_per_frame=[16, 4]", "--data.max_seq_length=500"]
    arguments += ["--model.num_world_steps=2", "--data.token_budget=500"]
    made = cli.TheWorldCLI(TheWorldModule, OSDDataModule, run=False, save_config_callback=None, args=arguments)
    assert made.datamodule.random_num_world_tokens == [48, 12]
    assert made.model.random_world_tokens_per_frame == [16, 4]
    message = refused(f"--config={TINY}", "--model.random_world_tokens_per_frame=[64, 5]")
    assert "found random_world_tokens_per_frame=[64, 5], expected at least two different ones of [64, 16, 4" in message


def test_the_end_of_a_stage_is_not_counted_as_training_time():
    order = list(cli.CALLBACKS)
    assert order.index("throughput") < min(order.index("stage_validation"), order.index("stage_export"))


def test_checkpoints_of_one_root_lie_together():
    assert checkpoint_directory("outputs/tiny") == "outputs/tiny/checkpoints"
    assert checkpoint_directory(None) == "checkpoints"


def test_the_synthetic_tool_generates_with_the_given_settings(monkeypatch, capsys, tmp_path):
    asked = []

    def generate(self: SyntheticScenes, progress: bool = True) -> SyntheticPaths:
        asked.append(self)
        names = ("train_path", "train_images", "val_path", "val_images", "test_path", "test_images")
        return SyntheticPaths(**{name: tmp_path / name for name in names})

    monkeypatch.setattr(SyntheticScenes, "generate", generate)
    main(["data", "synthetic", "--num_train=7", f"--cache_dir={tmp_path}", "--categories={left_predicate: 2.0}"])
    assert asked == [SyntheticScenes(num_train=7, cache_dir=str(tmp_path), categories={"left_predicate": 2.0})]
    assert f"train_path: {tmp_path / 'train_path'}" in capsys.readouterr().out


def test_help_names_the_tools(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "data synthetic, pairs, index, shard, cache, inspect" in printed
    assert "Tools: theworld score" in printed

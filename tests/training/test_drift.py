"""Resuming as another run than it was: what counts, how it reads, and what is written down."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from tests.training.conftest import one_stage
from theworld.cli import main
from theworld.training import fingerprint as fingerprints
from theworld.training.callbacks.drift import DriftRefusal
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories
from theworld.training.events import read_events

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning"),
]
STAGES = one_stage(4, world_projector=1e-2)


@pytest.fixture
def fit(make_trainer, make_module, make_data, tmp_path):
    """Train until a step, saving after each; resume with changes."""

    def run(steps: int, *, ckpt_path=None, allow=False, data=None, trainer=None, **model: object) -> None:
        saver = CrashSafeCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=1)
        settings = {"enable_checkpointing": True, "plugins": [CheckpointDirectories()], "max_steps": steps}
        runner = make_trainer(DriftRefusal(allow=allow), saver, **settings | (trainer or {}))
        module = make_module(**{"stages": STAGES} | model)
        runner.fit(module, datamodule=make_data(**data or {}), ckpt_path=ckpt_path)
        assert runner.global_step == steps

    return run


@pytest.fixture
def saved(fit, tmp_path):
    fit(2)
    return str(tmp_path / "saved" / "step=2.ckpt")


FASTER = {"only": replace(STAGES["only"], min_lr_ratio=0.5)}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"weight_decay": 0.1}, "model.weight_decay: saved 0.0, now 0.1"),
        ({"stages": FASTER}, "stages.only.min_lr_ratio: saved 0.1, now 0.5"),
        ({"data": {"max_seq_length": 190}}, "data.max_seq_length: saved 192, now 190"),
        ({"data": {"blank_image": "vision"}}, "data.blank_image: saved None, now vision"),
        ({"trainer": {"gradient_clip_val": 1.0}}, "trainer.gradient_clip_val: saved None, now 1.0"),
    ],
)
def test_a_changed_setting_is_refused_by_name_and_goes_on_if_allowed(fit, saved, tmp_path, changes, line):
    with pytest.raises(
        ValueError, match=f"found 1 differences .*\n  {re.escape(line)}\nRestore them, or add --allow_dr"
    ):
        fit(3, ckpt_path=saved, **changes)
    assert read_events(tmp_path) == []
    if "data" in changes:
        return  # the loader compares what it counted, and allows nothing
    fit(3, ckpt_path=saved, allow=True, **changes)
    resumed, drift = read_events(tmp_path)
    assert (resumed["event"], resumed["step"], resumed["checkpoint"]) == ("resumed", 2, saved)
    assert (drift["event"], drift["differences"]) == ("drift", [line])


def test_allowed_settings_of_the_optimizer_are_those_it_uses(fit, saved, tmp_path):
    """Loading an optimizer's state brings the old ones back; the next checkpoint would say what is not so."""
    fit(3, ckpt_path=saved, allow=True, weight_decay=0.5, betas=(0.5, 0.6))
    checkpoint = CheckpointDirectories().load_checkpoint(tmp_path / "saved" / "step=3.ckpt")
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    assert {tuple(group["betas"]) for group in groups} == {(0.5, 0.6)}
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}  # matrices, and norms and biases


def test_changed_code_and_tokenizer_are_refused(fit, saved, monkeypatch):
    own, tokenizer = fingerprints.code(), fingerprints.processor_hashes
    monkeypatch.setattr(fingerprints, "code", lambda: own | {"torch": "9.9"})
    with pytest.raises(
        ValueError, match=rf"code.torch: saved {re.escape(torch.__version__.split('+')[0])}.*, now 9.9\n"
    ):
        fit(3, ckpt_path=saved)
    monkeypatch.setattr(fingerprints, "code", lambda: own)

    def other(processor):
        processor.tokenizer.add_tokens(["<new>"])
        return tokenizer(processor)

    monkeypatch.setattr(fingerprints, "processor_hashes", other)
    with pytest.raises(ValueError, match=r"found 1 differences .*\n  processor.tokenizer: saved \w{64}, now \w{64}\n"):
        fit(3, ckpt_path=saved)


def test_what_does_not_matter_may_change(fit, saved, tmp_path):
    """Recomputing, workers, limits and logging."""
    recomputing = {"only": replace(STAGES["only"], recompute="full")}
    fit(4, ckpt_path=saved, stages=recomputing, data={"num_workers": 1}, trainer={"log_every_n_steps": 7})
    (event,) = read_events(tmp_path, "resumed", "drift")
    assert (event["event"], event["world_size_before"], event["world_size"]) == ("resumed", 1, 1)


def test_the_hash_of_the_code_is_that_of_its_files(monkeypatch, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    monkeypatch.setattr(fingerprints.theworld, "__file__", str(package / "__init__.py"))
    uncached = fingerprints.code.__wrapped__
    before = uncached()
    assert uncached() == before
    (package / "__init__.py").write_text("a = 2\n")
    assert uncached()["source_sha256"] != before["source_sha256"]


def test_a_checkpoint_without_a_fingerprint_is_read_and_said_to_be(
    make_trainer, make_module, make_data, tmp_path, capsys
):
    saver = CrashSafeCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=1)
    settings = {"enable_checkpointing": True, "plugins": [CheckpointDirectories()]}
    make_trainer(saver, **settings, max_steps=1).fit(make_module(stages=STAGES), datamodule=make_data())
    trainer = make_trainer(DriftRefusal(), **settings, max_steps=2)
    path = str(tmp_path / "saved" / "step=1.ckpt")
    trainer.fit(make_module(stages=STAGES, weight_decay=0.1), datamodule=make_data(), ckpt_path=path)
    assert "holds no fingerprint" in capsys.readouterr().out


def test_the_flag_reaches_the_callback(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["theworld"])
    for flags, expected in (([], "allow_drift: false"), (["--allow_drift"], "allow_drift: true")):
        with pytest.raises(SystemExit):
            main(["fit", "--model.base=x", "--data.train_path=x", *flags, "--print_config"])
        assert expected in capsys.readouterr().out

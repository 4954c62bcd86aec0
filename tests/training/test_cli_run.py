"""The command from end to end: `theworld fit` over three stages, its exports, a resume, and `theworld test`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from theworld.cli import main
from theworld.training.checkpoints.plugin import CheckpointDirectories

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def arguments(base, osd, tmp_path, monkeypatch) -> list[str]:
    """`configs/tiny.yaml` over the test's own base and rows, one optimizer step a stage."""
    monkeypatch.setattr("sys.argv", ["theworld"])  # Lightning warns of pytest's own arguments
    return [
        f"--config={CONFIG}",
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.enable_progress_bar=false",
        "--trainer.log_every_n_steps=1",
        f"--model.base={base}",
        "--model.max_new_tokens=3",
        "--data.synthetic=null",
        *(f"--data.{name}={path}" for name, path in osd.items()),
        *(f"--model.stages.{stage}.max_steps=1" for stage in ("projection", "vision", "language")),
        "--checkpoint.every_n_train_steps=2",
    ]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")  # that of the resume
def test_fit_exports_tests_and_resumes(arguments, tmp_path, capsys):
    main(["fit", *arguments])
    printed = capsys.readouterr().out
    assert "Stages, at optimizer step 0 of 3" in printed
    assert "Stage language: validation loss" in printed
    assert "left/right" in printed  # test_after_fit
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["language", "projection", "vision"]
    log = tmp_path / "lightning_logs" / "version_0"
    answered = [json.loads(line) for line in (log / "predictions.jsonl").read_text().splitlines()]
    assert len(answered) == 5
    saved = yaml.safe_load((log / "config.yaml").read_text())
    assert saved["model"]["stages"]["vision"]["max_steps"] == 1
    checkpoint = CheckpointDirectories().load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2

    main(["fit", *arguments, "--ckpt_path=last", "--test_after_fit=false"])
    assert "Stages, at optimizer step 2 of 3" in capsys.readouterr().out

    export = f"--model.base={tmp_path / 'export' / 'language'}"
    main(["test", *arguments, export])
    again = tmp_path / "lightning_logs" / "version_2" / "predictions.jsonl"
    assert [json.loads(line)["prediction"] for line in again.read_text().splitlines()] == [
        line["prediction"] for line in answered
    ]


@pytest.mark.slow
def test_two_processes_train_what_one_does(arguments, tmp_path):
    """DDP over gloo, three stages in one run: the same weights as one process that accumulates two micro-batches."""
    common = ["--data.micro_batches_per_step=2", "--test_after_fit=false"]
    one, two = tmp_path / "one", tmp_path / "two"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the two processes below: sums of another order differ in the last digits
    try:
        main(["fit", *arguments, *common, f"--trainer.default_root_dir={one}", "--trainer.accumulate_grad_batches=2"])
    finally:
        torch.set_num_threads(threads)
    distributed = ["--trainer.devices=2", "--trainer.strategy=ddp_find_unused_parameters_true"]
    distributed += ["--trainer.accumulate_grad_batches=1"]
    command = [sys.executable, "-m", "theworld", "fit", *arguments, *common, *distributed]
    subprocess.run([*command, f"--trainer.default_root_dir={two}"], check=True, timeout=120, env=ENVIRONMENT)
    for stage in ("projection", "vision", "language"):
        alone, together = (load_file(root / "export" / stage / "model.safetensors") for root in (one, two))
        assert alone.keys() == together.keys()
        for name, weight in alone.items():
            torch.testing.assert_close(together[name], weight, rtol=1e-6, atol=1e-7)

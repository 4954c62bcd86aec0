"""`theworld audit` from the command line: files and status 0, and status 1 with the cause where a branch is off."""

from __future__ import annotations

import json

import pytest
import torch

from theworld.cli import main


@pytest.fixture
def export(audited, tmp_path):
    """Write a model with its processor, as a stage's export is; returns the folder."""

    def write(model, *, enable_world: bool = True):
        model.save_pretrained(tmp_path / "export")
        audited.samples(enable_world=enable_world).processor.save_pretrained(tmp_path / "export")
        return str(tmp_path / "export")

    return write


@pytest.fixture
def command(audited, tmp_path):
    def run(model: str, *more: str):
        places = [f"--rows={audited.rows}", f"--images={audited.images}", f"--output={tmp_path / 'audit'}"]
        main(["audit", model, *places, "--max_new_tokens=3", "--probes=1", "--device=cpu", *more])

    return run


def test_an_audit(audited, export, command, tmp_path, capsys):
    command(export(audited.model()))
    printed = " ".join(capsys.readouterr().out.split())
    assert "Not decided whether it relies on world: " in printed
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["errors"] == []
    assert (tmp_path / "audit" / "report.html").is_file()


def test_a_disconnected_branch_ends_with_status_1_and_leaves_the_report(audited, export, command, tmp_path):
    model = audited.model()
    with torch.no_grad():
        for parameter in model.cosmos_encoder.projector.parameters():
            parameter.zero_()
    with pytest.raises(SystemExit, match="the projector's output is 0 everywhere"):
        command(export(model))
    written = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert len(written["errors"]) == 1
    assert written["verdict"] is None
    assert "Error." in (tmp_path / "audit" / "report.html").read_text()


def test_a_model_without_a_world_branch(audited, export, command):
    with pytest.raises(SystemExit, match="found a model without a world branch .enable_world=False."):
        command(export(audited.model(enable_world=False), enable_world=False))


def test_a_base(audited, command):
    with pytest.raises(SystemExit, match="found model_type 'gemma3' .* no trained world projector"):
        command(audited.base)


def test_settings_that_make_no_sense(audited, export, command):
    with pytest.raises(SystemExit, match="found level=2.0"):
        command(export(audited.model()), "--level=2")

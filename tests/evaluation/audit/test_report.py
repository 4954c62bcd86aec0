"""What an audit writes: numbers for a program, answers that score again, and a page for a reader."""

from __future__ import annotations

import json
import re

import pytest
import torch
from PIL import Image
from rich.console import Console

from tests.evaluation.audit.conftest import NUM_ROWS
from theworld.evaluation.audit.arms import ARMS
from theworld.evaluation.audit.page import page_files, table
from theworld.evaluation.audit.signals import gradient_norms
from theworld.evaluation.predictions import read_predictions


@pytest.fixture(scope="module")
def folder(findings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name, content in (findings.files() | page_files(findings)).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_the_summary(folder, findings):
    found = json.loads((folder / "audit.json").read_text())
    assert list(found["arms"]) == list(ARMS)
    assert found["n"] == found["arms"]["real"]["n"] == NUM_ROWS
    assert found["errors"] == []
    assert len(found["attention_mass"]["layers"]) == 2
    for layer in found["attention_mass"]["layers"]:
        assert 0 < layer["world"] < 1
    loud = found["root_mean_square"]
    assert loud["world"] == pytest.approx(loud["vocabulary"], rel=1e-3)  # the projector scales its tokens to that
    assert 0 < loud["world_varying"] <= 1
    assert found["gradient"].keys() == {"world_projector", "world_encoder", "vision", "language"}
    assert all(gradient["norm"] > 0 for gradient in found["gradient"].values())


def test_the_same_audit_writes_the_same_bytes(audited, findings):
    assert audited.run(audited.model()).files() == findings.files()


@pytest.mark.parametrize("arm", ARMS)
def test_answers_of_every_arm_score_again(folder, findings, arm):
    path = folder / "predictions" / f"{arm}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["arm"] for row in rows} == {arm}
    assert {"id", "question", "ground_truth", "prediction", "qa_type", "qa_category"} <= rows[0].keys()
    assert [prediction.text for prediction in read_predictions(path)] == list(findings.answers[arm].texts)


def test_the_page_needs_nothing_else(folder):
    page = (folder / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)|<script|@import|url\(", page)
    assert "data:image/png;base64," in page
    assert all(arm in page for arm in ARMS)
    with Image.open(folder / "audit.png") as picture:
        assert picture.width <= 1200  # a page of 1280 pixels holds it


def test_the_table_fits_a_terminal(findings):
    console = Console(width=80, record=True)
    console.print(table(findings))
    text = console.export_text()
    assert all(arm in text for arm in ARMS)
    assert "relies on world: " in text


def test_gradients_are_those_of_one_backward(audited):
    model = audited.model()
    samples = audited.samples()
    from theworld.data.packing.collator import pad

    parts = [samples.read(0), samples.read(1)]
    frozen = {name: p.requires_grad for name, p in model.named_parameters()}
    singly = gradient_norms(model, [pad([part], pad_token_id=0, side="right") for part in parts])
    assert {name: p.requires_grad for name, p in model.named_parameters()} == frozen
    assert all(p.grad is None for p in model.parameters())
    batch = pad(parts, pad_token_id=0, side="right")
    model.requires_grad_(True)
    model(
        batch.input_ids,
        document_ids=batch.document_ids,
        pixel_values=batch.pixel_values,
        world_pixel_values=batch.world_pixel_values,
        labels=batch.labels,
    ).loss.backward()
    projector = torch.cat([p.grad.flatten() for p in model.cosmos_encoder.projector.parameters()])
    assert singly["world_projector"].norm == pytest.approx(float(projector.norm()), rel=1e-3)
    assert singly["world_projector"].parameters == len(projector)

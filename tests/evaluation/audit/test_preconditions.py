"""What ends an audit before it answers, and leaves no file behind."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import osd_row, write_osd
from theworld.cli import main
from theworld.evaluation.audit import run
from theworld.evaluation.audit.preconditions import check_logits


@pytest.fixture
def no_answers(monkeypatch):
    """Nothing may be answered."""
    monkeypatch.setattr(run, "answer_batch", None)


def test_a_weight_that_is_no_number(audited, no_answers):
    model = audited.model()
    with torch.no_grad():
        model.cosmos_encoder.projector.layers[-1].weight[0, :2] = torch.nan
    with pytest.raises(ValueError, match=r"projector\.layers\.2\.weight: found 2 of \d+ weights that are not finite"):
        audited.run(model)


def test_it_leaves_no_file(audited, tmp_path):
    model = audited.model()
    with torch.no_grad():
        model.gemma.lm_head.weight[5, 0] = torch.inf
    model.save_pretrained(tmp_path / "export")
    audited.samples().processor.save_pretrained(tmp_path / "export")
    words = [f"--rows={audited.rows}", f"--images={audited.images}", f"--output={tmp_path / 'audit'}", "--device=cpu"]
    with pytest.raises(
        SystemExit, match="theworld audit: .*found 1 of .* not finite, expected none; the export is broken"
    ):
        main(["audit", str(tmp_path / "export"), *words])
    assert not (tmp_path / "audit").exists()


def test_logits_that_are_no_numbers(audited, monkeypatch):
    model, original, batches = audited.model(), run.answer_batch, []
    monkeypatch.setattr(run, "answer_batch", lambda *given, **more: (batches.append(1), original(*given, **more))[1])
    model.gemma.lm_head.register_forward_hook(lambda module, given, made: made * torch.nan)
    with pytest.raises(
        ValueError, match="arm real: found logits that are not finite for 3 of 3 .*'test-0' for example"
    ):
        audited.run(model)
    assert len(batches) == 1  # it ends with the first batch
    check_logits(torch.zeros(2, 4), ["a", "b"], arm="mean")
    with pytest.raises(ValueError, match="arm mean: .* for 1 of 2 questions of a batch, 'b' for example"):
        check_logits(torch.tensor([[0.0, 1.0], [0.0, torch.inf]]), ["a", "b"], arm="mean")


def test_a_truth_that_cannot_be_read(audited, no_answers, tmp_path):
    rows = [osd_row(n, answer="Yes.", id=f"test-{n}") for n in range(4)]
    rows[2] |= {"qa_info": {"type": "quantitative", "category": "weight_data"}}
    path, _ = write_osd(tmp_path, rows, "broken.json")
    with pytest.raises(
        ValueError, match="broken.json.*: 1 of 4 questions cannot be scored; the first: .*'weight_data'"
    ):
        audited.run(audited.model(), audited.samples(rows=str(path)))


@pytest.mark.parametrize("part", ["projector", "vae"])
def test_one_samples_tokens_for_all_of_a_batch(audited, no_answers, part):
    """A replay of the same batch goes the same way, so that the arms could not show it."""
    model = audited.model()
    module = getattr(model.cosmos_encoder, part)
    original = module.forward
    module.forward = lambda given: original(given)[:1].expand(len(given), *original(given).shape[1:]).contiguous()
    with pytest.raises(
        ValueError, match="beside another one than for the same frame alone.*gives all of them one sample's"
    ):
        audited.run(model)


def test_tokens_of_the_neighbour(audited, no_answers):
    model = audited.model()
    original = model.cosmos_encoder.vae.forward
    model.cosmos_encoder.vae.forward = lambda given: original(given).roll(1, dims=0)
    with pytest.raises(ValueError, match="the world branch mixes the samples of a batch"):
        audited.run(model)


def test_tokens_that_are_dropped_behind_the_branch(audited, no_answers):
    model = audited.model()
    original = model.cosmos_encoder.forward
    model.cosmos_encoder.forward = lambda given: torch.zeros_like(original(given))
    with pytest.raises(ValueError, match="CosmosEncoder.forward drops or changes them on the way into the sequence"):
        audited.run(model)


def test_tokens_that_are_lost_further_on_are_named_too(audited, monkeypatch):
    from theworld.models import fusion

    original = fusion.world_tokens
    monkeypatch.setattr(fusion, "world_tokens", lambda *given, **more: original(*given, **more) * 50)
    with pytest.raises(ValueError, match="put into the sequence once more.*dropped or changed before it gets there"):
        audited.run(audited.model())

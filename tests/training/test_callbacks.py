"""Each callback's one behaviour, over the real trainer."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from tests.training.conftest import one_stage
from theworld.data.processor import TheWorldProcessor
from theworld.models.theworld import TheWorld
from theworld.training.callbacks.answer_file import AnswerFile
from theworld.training.callbacks.answer_table import AnswerTable
from theworld.training.callbacks.stage_export import StageExport
from theworld.training.callbacks.stage_progress import StageProgressBar
from theworld.training.callbacks.stage_validation import StageValidation
from theworld.training.stages import LearningRates, Stage

pytestmark = pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")  # many runs here stop early


class Gradients(Callback):
    """Gradients of the first optimizer step, and how often Gemma's first two layers ran."""

    def __init__(self) -> None:
        self.first: dict[str, torch.Tensor] = {}
        self.calls = [0, 0]

    def on_train_start(self, trainer, pl_module):
        for number, layer in enumerate(pl_module.world.gemma.model.language_model.layers[:2]):
            layer.self_attn.register_forward_hook(lambda *_, number=number: self._count(number))

    def _count(self, number):
        self.calls[number] += 1

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.world.named_parameters()
        self.first = self.first or {n: p.grad.clone() for n, p in named if p.grad is not None}


def test_the_run_ends_with_the_last_stage(make_module, make_data, make_trainer):
    trainer = make_trainer(min_epochs=50)  # a minimum of epochs does not prolong it
    trainer.fit(make_module(), datamodule=make_data())
    assert trainer.global_step == 7


def test_a_lower_step_limit_ends_it_earlier_and_says_so(make_module, make_data, make_trainer):
    trainer = make_trainer(max_steps=3)
    with pytest.warns(UserWarning, match="Stopped at optimizer step 3 of 7, in stage 'vision'"):
        trainer.fit(make_module(), datamodule=make_data())
    assert trainer.global_step == 3


def test_recompute_runs_layers_again_and_changes_no_gradient(make_module, make_data, make_trainer):
    plain = Stage(learning_rates=LearningRates(world_projector=1e-2, language=1e-3), max_steps=1)
    seen = []
    for recompute in ("none", "selective", "full"):
        gradients = Gradients()
        stages = {"only": replace(plain, recompute=recompute)}
        make_trainer(gradients).fit(make_module(stages=stages), datamodule=make_data())
        seen.append(gradients)
    assert [gradients.calls for gradients in seen] == [[1, 1], [2, 1], [2, 2]]
    for other in seen[1:]:
        assert seen[0].first.keys() == other.first.keys()
        assert all(torch.equal(gradient, other.first[name]) for name, gradient in seen[0].first.items())


def test_several_stages_under_ddp_need_find_unused_parameters(make_module, make_data, make_trainer):
    single, distributed = make_module(), make_module()
    make_trainer().fit(single, datamodule=make_data())
    try:
        with pytest.raises(ValueError, match="found 3 stages under DDP without find_unused_parameters"):
            make_trainer(strategy="ddp").fit(make_module(), datamodule=make_data())
        make_trainer(strategy="ddp_find_unused_parameters_true").fit(distributed, datamodule=make_data())
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    for (name, a), (_, b) in zip(single.world.named_parameters(), distributed.world.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_validation_loss_at_every_boundary(make_module, make_data, make_trainer, tmp_path):
    measured = StageValidation()
    saver = ModelCheckpoint(dirpath=tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    logger = CSVLogger(tmp_path)
    settings = {"limit_val_batches": 1.0, "check_val_every_n_epoch": 100}
    trainer = make_trainer(measured, saver, enable_checkpointing=True, logger=logger, **settings)
    module, data = make_module(), make_data()
    trainer.fit(module, datamodule=data)
    assert list(measured.losses) == ["projection", "vision", "language"]
    assert measured.losses["vision"]["before"] == measured.losses["projection"]["after"]
    assert len({loss for stage in measured.losses.values() for loss in stage.values()}) == 4

    final = make_trainer(limit_val_batches=1.0).validate(module, datamodule=data, verbose=False)[0]["val/loss"]
    assert measured.losses["language"]["after"] == pytest.approx(final, rel=1e-6)
    batches = list(data.val_dataloader())
    with torch.no_grad():
        loss = sum(module(b).loss_sum for b in batches) / sum(b.num_target_tokens for b in batches)
    assert final == pytest.approx(loss.item(), rel=1e-6)

    logged = (Path(logger.log_dir) / "metrics.csv").read_text()
    assert "stage/projection/val_loss_before" in logged
    assert "stage/language/val_loss_after" in logged

    resumed = StageValidation()
    make_trainer(resumed, enable_checkpointing=True, **settings).fit(
        make_module(), datamodule=make_data(), ckpt_path=tmp_path / "saved" / "step=3.ckpt"
    )
    assert resumed.losses == measured.losses


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_without_validation_rows_nothing_is_measured(make_module, make_data, make_trainer):
    measured = StageValidation()
    data = make_data(val_path=None, val_images=None)
    make_trainer(measured, limit_val_batches=1.0, max_steps=2).fit(make_module(), datamodule=data)
    assert measured.losses == {}


def test_an_export_is_on_disk_before_it_has_its_name(make_module, make_data, make_trainer, tmp_path, monkeypatch):
    """The checkpoint of the boundary is, and a run that goes on from it makes the export no more: a power cut shows."""
    calls, rename, sync = [], Path.rename, os.fsync

    def synced(descriptor):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", lambda self, target: calls.append(("named", target)) or rename(self, target))
    make_trainer(StageExport()).fit(make_module(stages=one_stage(1, world_projector=1e-2)), datamodule=make_data())
    target = tmp_path / "export" / "only"
    named = calls.index(("named", target))
    unfinished = f"{target}.unfinished"
    assert {*calls[:named]} >= {f"{unfinished}/{file.name}" for file in target.iterdir()} | {unfinished}
    assert str(target.parent) in calls[named:]


def test_an_export_is_the_trained_model_and_replaces_an_older_one(
    stages, make_module, make_data, make_trainer, tmp_path
):
    target = tmp_path / "export"
    (target / "vision").mkdir(parents=True)
    (target / "vision" / "old.txt").write_text("from an earlier run")
    module = make_module()
    make_trainer(StageExport()).fit(module, datamodule=make_data())
    assert sorted(path.name for path in target.iterdir()) == ["language", "projection", "vision"]
    assert not (target / "vision" / "old.txt").exists()
    assert list((target / "language").glob("*.safetensors"))
    assert not list(target.rglob("*.bin"))

    loaded = {name: TheWorld.from_pretrained(str(target / name)) for name in ("projection", "language")}
    last = dict(loaded["language"].named_parameters())
    assert all(torch.equal(p, last[n]) for n, p in module.world.named_parameters())
    first = dict(loaded["projection"].named_parameters())
    assert any(not torch.equal(p, first[n]) for n, p in module.world.named_parameters())  # control
    processor = TheWorldProcessor.from_pretrained(target / "language", num_world_tokens=4, world_image_size=16)
    assert processor.num_image_tokens == 4

    continued = make_module(base=str(target / "projection"), stages={"vision": stages["vision"]})
    make_trainer().fit(continued, datamodule=make_data(base=str(target / "projection")))


def test_answers_are_scored_printed_and_written(make_module, make_data, make_trainer, tmp_path, capsys):
    module, data, table = make_module(), make_data(test_batch_size=2), AnswerTable()
    trainer = make_trainer(table)
    trainer.test(module, datamodule=data, verbose=False)
    printed = capsys.readouterr().out
    assert "left/right" in printed
    assert "best constant" in printed
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"test-{number}" for number in range(5)]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["n"] == 5
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 5
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["test/accuracy"] == pytest.approx(summary["rows"]["overall"]["accuracy"])
    assert "test/accuracy/left-right" in logged

    alone = make_data(test_batch_size=1)
    alone.setup("test")
    module.eval()  # as the test loop has it
    answers = [answer.text for prompt in alone.test_dataloader() for answer in module.answer(prompt)]
    assert [line["prediction"] for line in lines] == answers


def test_prediction_runs_write_the_same_answers_unscored(make_module, make_data, make_trainer, tmp_path):
    module, data = make_module(), make_data(test_batch_size=2)
    trainer = make_trainer(AnswerTable(), AnswerFile())
    trainer.test(module, datamodule=data, verbose=False)
    trainer.predict(module, datamodule=data)
    tested, predicted = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("predictions.jsonl", "answers.jsonl")
    )
    assert [(line["id"], line["prediction"]) for line in tested] == [
        (line["id"], line["prediction"]) for line in predicted
    ]
    assert tested == predicted
    assert "outcome" not in predicted[0]
    scored = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert "outcome" in scored[0]  # control: the scored file is another one


def test_the_progress_bar_shows_stage_and_step(make_module, make_data, make_trainer):
    shown = []

    class Recording(StageProgressBar):
        def get_metrics(self, trainer, pl_module):
            metrics = super().get_metrics(trainer, pl_module)
            shown.append((metrics.get("stage"), metrics.get("step"), "train/loss" in metrics))
            return metrics

    trainer = make_trainer(Recording(), enable_progress_bar=True, max_steps=3)
    trainer.fit(make_module(), datamodule=make_data())
    assert ("projection", "1/3", True) in shown
    assert ("projection", "2/3", True) in shown
    assert ("vision", "3/3", True) in shown

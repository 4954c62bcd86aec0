"""Answers during validation: what is logged is what the scorer says of the same answers."""

from __future__ import annotations

import pytest

from theworld.evaluation.predictions import Prediction
from theworld.evaluation.report import Report
from theworld.training.callbacks.validation_answers import ValidationAnswers


def test_the_accuracy_of_the_first_test_questions_is_logged(make_module, make_data, make_trainer, monkeypatch):
    module, data = make_module(), make_data(test_batch_size=2)
    trainer = make_trainer(ValidationAnswers(batches=2), limit_val_batches=1.0)
    asked, answer = [], module.answer
    monkeypatch.setattr(module, "answer", lambda batch: asked.extend(batch.questions) or answer(batch))
    trainer.validate(module, datamodule=data, verbose=False)
    assert [question.id for question in asked] == ["test-0", "test-1", "test-2", "test-3"]
    module.eval()  # `answer` refuses a model in training mode, to which Lightning has gone back by now
    answers: list[Prediction] = []
    for number, batch in enumerate(data.test_dataloader()):
        if number < 2:
            answers += answer(batch)
    report = Report.from_predictions(answers)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["val/accuracy"] == pytest.approx(report.row("overall").accuracy)
    assert logged["val/unread"] == pytest.approx(report.row("overall").unread / len(answers))
    assert "val/loss" in logged


def test_no_question_is_answered_unless_asked_for(make_module, make_data, make_trainer):
    trainer = make_trainer(ValidationAnswers(), limit_val_batches=1.0)
    trainer.validate(make_module(), datamodule=make_data(), verbose=False)
    assert "val/loss" in trainer.callback_metrics
    assert "val/accuracy" not in trainer.callback_metrics
    with pytest.raises(ValueError, match="found batches=-1, expected 0 or more"):
        ValidationAnswers(batches=-1)


def test_fitting_answers_at_every_validation(make_module, make_data, make_trainer):
    callback = ValidationAnswers(batches=1)
    trainer = make_trainer(callback, val_check_interval=1, limit_val_batches=1)
    trainer.fit(make_module(), datamodule=make_data(test_batch_size=2))
    assert "val/accuracy" in trainer.callback_metrics

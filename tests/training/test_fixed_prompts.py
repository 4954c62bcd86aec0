"""Questions answered while the model trains: what is shown, and that training goes on as if nothing had been asked."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.conftest import DATA, MODEL
from tests.training.parallel.staged_run import STEPS, run_stages
from tests.training.ranks import Ranks
from theworld.training.callbacks import fixed_prompts
from theworld.training.callbacks.fixed_prompts import FixedPrompts

pytestmark = pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")


class Course(Callback):
    """Losses and random states of a run, and which modules train."""

    def __init__(self) -> None:
        self.losses, self.states, self.modes = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.states.append((torch.get_rng_state().numpy().tobytes(), random.random(), np.random.rand()))
        self.modes.append({name: module.training for name, module in pl_module.world.named_modules()})


def course(make_module, make_data, make_trainer, *callbacks, **settings):
    """Of a run in which the text embedding stays in evaluation mode and everything else trains."""

    class Mixed(Callback):
        def on_train_start(self, trainer, pl_module):
            pl_module.world.gemma.get_input_embeddings().eval()

    recorded = Course()
    module = make_module()
    trainer = make_trainer(Mixed(), *callbacks, recorded, **settings)
    trainer.fit(module, datamodule=make_data())
    return recorded, {name: weight.detach().clone() for name, weight in module.world.named_parameters()}


def assert_same(first, second):
    (one, weights), (other, others) = first, second
    assert one.losses == other.losses
    assert one.states == other.states
    assert one.modes == other.modes
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


def test_asking_changes_nothing(make_module, make_data, make_trainer):
    run = make_module, make_data, make_trainer
    plain = course(*run)
    assert len(plain[0].losses) > 6
    asked = course(*run, FixedPrompts(every_n_steps=1, num_prompts=3, max_new_tokens=2))
    assert_same(plain, asked)


@pytest.mark.parametrize("broken", ["isolate_rng", "_evaluating"])
def test_what_asking_would_change_is_noticed(make_module, make_data, make_trainer, monkeypatch, broken):
    """The control: without one of the precautions, and with an answer that draws a number, the runs differ."""
    run = make_module, make_data, make_trainer
    plain = course(*run)

    class Careless:
        def __init__(self, model=None):
            self.model = model

        def __enter__(self):
            if self.model is not None:
                self.model.eval()

        def __exit__(self, *_):
            if self.model is not None:
                self.model.train()

    true_answer = fixed_prompts.answer

    def drawing(*args, **kwargs):
        torch.rand(1)
        return true_answer(*args, **kwargs)

    monkeypatch.setattr(fixed_prompts, "answer", drawing)
    assert_same(plain, course(*run, FixedPrompts(every_n_steps=1, num_prompts=1, max_new_tokens=1)))
    monkeypatch.setattr(fixed_prompts, broken, Careless)
    with pytest.raises(AssertionError):
        assert_same(plain, course(*run, FixedPrompts(every_n_steps=1, num_prompts=1, max_new_tokens=1)))


@pytest.mark.parametrize("logger", [None, CSVLogger], ids=["no logger", "CSV"])
def test_without_tensorboard_there_is_a_folder(make_module, make_data, make_trainer, tmp_path, logger):
    module = make_module()
    settings = {"logger": logger(tmp_path / "logs")} if logger else {}
    trainer = make_trainer(FixedPrompts(every_n_steps=3, num_prompts=4, max_new_tokens=3), **settings)
    data = make_data()
    trainer.fit(module, datamodule=data)
    folder = tmp_path / "fixed_prompts"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"step={step}.{suffix}" for step in (0, 3, 6) for suffix in ("jsonl", "png")
    ]
    rows = [json.loads(line) for line in (folder / "step=6.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["test-0", "test-1", "test-3", "test-4"]
    assert rows[0]["question"] == "Is Region [0] left of Region [1]?"
    assert rows[0]["ground_truth"] == "Yes."
    assert Image.open(folder / "step=6.png").width > 1000


def test_the_answers_are_those_of_the_test_loop(make_module, make_data, make_trainer, tmp_path):
    """After the last step: the same prompts, the same weights, the same text."""
    module, data = make_module(), make_data()
    make_trainer(FixedPrompts(every_n_steps=7, num_prompts=5, max_new_tokens=3)).fit(module, datamodule=data)
    lines = (tmp_path / "fixed_prompts" / "step=7.jsonl").read_text().splitlines()
    during = {row["id"]: row["prediction"] for row in map(json.loads, lines)}
    tested = make_trainer().predict(module, datamodule=data)
    after = {row["id"]: row["prediction"] for rows in tested for row in rows}
    assert during == after
    assert len(after) == 5


def test_tensorboard_gets_pictures_and_text(make_module, make_data, make_trainer, tmp_path):
    logger = TensorBoardLogger(tmp_path)
    trainer = make_trainer(FixedPrompts(every_n_steps=4, num_prompts=2, max_new_tokens=3), logger=logger)
    trainer.fit(make_module(), datamodule=make_data())
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0, "tensors": 0}).Reload()
    assert sorted(events.Tags()["images"]) == ["fixed_prompts/test-0", "fixed_prompts/test-4"]
    pictures = events.Images("fixed_prompts/test-0")
    assert [picture.step for picture in pictures] == [0, 4]
    assert pictures[0].width > 600
    text = events.Tensors("fixed_prompts/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| test-0 | Is Region [0] left of Region [1]? |" in text
    assert text.count("\n") == 3
    assert not (tmp_path / "fixed_prompts").exists()


def test_off_by_default_and_refused_without_questions(make_module, make_data, make_trainer, tmp_path):
    make_trainer(FixedPrompts()).fit(make_module(), datamodule=make_data(test_path=None, test_images=None))
    assert not (tmp_path / "fixed_prompts").exists()
    with pytest.raises(ValueError, match="every_n_steps asks test questions .* there are no test rows"):
        make_trainer(FixedPrompts(every_n_steps=1)).fit(
            make_module(), datamodule=make_data(test_path=None, test_images=None)
        )
    with pytest.raises(ValueError, match="found fixed_prompts.num_prompts=0, expected at least 1"):
        FixedPrompts(num_prompts=0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_find_unused_parameters_true", "fsdp2"])
def test_two_ranks_share_the_questions_and_train_as_without(base, osd, tmp_path, strategy):
    """Three questions on two ranks: they make different numbers of passes, none waits for ever, no loss changes."""
    data, model, records = {"base": base} | osd | DATA, {"base": base} | MODEL, {}
    for asked in (0, 2):
        folder = tmp_path / str(asked)
        folder.mkdir()
        arguments = {"strategy": strategy, "data": data, "model": model, "double": False, "ask_every": asked}
        Ranks(run_stages, world_size=2, folder=folder, **arguments).wait()
        records[asked] = torch.load(folder / "record.pt")
    assert len(records[0]["losses"]) == STEPS
    assert records[0]["losses"] == records[2]["losses"]
    assert records[0]["norms"] == records[2]["norms"]
    for name, weight in records[0]["weights"].items():
        assert torch.equal(weight, records[2]["weights"][name]), name
    assert not (tmp_path / "0" / "fixed_prompts").exists()
    lines = (tmp_path / "2" / "fixed_prompts" / "step=6.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["test-0", "test-2", "test-4"]

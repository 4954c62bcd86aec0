"""Training with world tokens drawn at random: what it sees, that it goes on exactly, what its export says."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.training.conftest import MODEL, one_stage
from tests.training.poisoned import SAMPLE, Poisoned
from theworld.models.theworld import TheWorld
from theworld.training.callbacks.nonfinite import NonFiniteGuard
from theworld.training.callbacks.stage_export import StageExport
from theworld.training.fingerprint import fingerprint
from theworld.training.nonfinite.replay import Replay

DRAWN = {"random_world_tokens_per_frame": [4, 1]}
DATA_DRAWN = {"random_num_world_tokens": [4, 1]}


class Watch(Callback):
    """Names and draws of every batch, losses of every step."""

    def __init__(self) -> None:
        self.drawn: list[tuple[tuple[str, ...], tuple[int, ...]]] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.drawn.append((batch.ids, batch.world_token_counts))
        if pl_module.steps_after(batch_idx):
            self.losses.append(float(trainer.callback_metrics["train/loss"]))


def weights(module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.world.named_parameters()}


def test_a_resumed_run_is_bit_identical(make_module, make_data, make_trainer, tmp_path):
    """Saved within an epoch, and at the end of one."""
    data = {"micro_batches_per_step": 2} | DATA_DRAWN
    saver = ModelCheckpoint(dirpath=tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole, module = Watch(), make_module(**DRAWN)
    trainer = make_trainer(whole, saver, accumulate_grad_batches=2, enable_checkpointing=True)
    trainer.fit(module, datamodule=make_data(**data))
    per_epoch = len(trainer.train_dataloader)
    epochs = [dict(zip(*batch, strict=True)) for batch in whole.drawn]
    first, second = ({n: c for batch in epochs[i : i + per_epoch] for n, c in batch.items()} for i in (0, per_epoch))
    assert sorted(first) == sorted(f"train-{i}" for i in range(12))
    assert sorted(first.values()) == [1] * 6 + [4] * 6
    assert len(second) > 6  # the run ends within the second epoch
    assert any(first[name] != count for name, count in second.items())
    for step in (1, per_epoch // 2, 5):
        watch, again = Watch(), make_module(**DRAWN)
        make_trainer(watch, accumulate_grad_batches=2).fit(
            again, datamodule=make_data(**data), ckpt_path=tmp_path / "saved" / f"step={step}.ckpt"
        )
        assert watch.drawn == whole.drawn[2 * step :]
        assert watch.losses == whole.losses[step:]
        expected = weights(module)
        assert all(torch.equal(weight, expected[name]) for name, weight in weights(again).items())


def test_what_it_was_trained_with_is_exported_and_forgotten_by_training_with_one(
    make_module, make_data, make_trainer, tmp_path
):
    stages = one_stage(1, world_projector=1e-2)
    module = make_module(stages=stages, **DRAWN)
    trainer = make_trainer(StageExport())
    trainer.fit(module, datamodule=make_data(**DATA_DRAWN))
    export = tmp_path / "export" / "only"
    assert json.loads((export / "config.json").read_text())["trained_world_tokens_per_frame"] == [4, 1]
    assert fingerprint(trainer, module)["model"]["random_world_tokens_per_frame"] == "[4, 1]"
    assert TheWorld.from_pretrained(export, world_tokens_per_frame=1).config.num_world_tokens == 1

    again = make_module(base=str(export), stages=stages)
    make_trainer(StageExport(directory="later")).fit(again, datamodule=make_data())
    config = TheWorld.from_pretrained(tmp_path / "later" / "only").config
    assert (config.trained_world_tokens_per_frame, config.budgets_trained_with) == (None, [4])


def test_validation_and_test_have_all_world_tokens(make_data):
    data = make_data(**DATA_DRAWN)
    data.setup("fit")
    data.setup("test")
    prompts = [prompt.batch for prompt in data.test_dataloader()]
    for batch in [*data.val_dataloader(), *prompts]:
        assert batch.world_token_counts == ()
        assert int((batch.token_type_ids == 2).sum()) == 4 * len(batch.ids)
    assert any(batch.world_token_counts for batch in data.train_dataloader())


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (DRAWN, {}, r"found random_num_world_tokens=None in the data, expected \[1, 4\]"),
        ({}, DATA_DRAWN, r"found random_num_world_tokens=\[1, 4\] in the data, expected None"),
    ],
)
def test_data_that_draws_otherwise_is_refused(make_module, make_data, make_trainer, model, data, message):
    with pytest.raises(ValueError, match=message):
        make_trainer().fit(make_module(**model), datamodule=make_data(**data))


@pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")
def test_a_step_is_made_again_with_its_draw(base, make_data, make_trainer, tmp_path):
    seen: list[dict[str, tuple[int, int]]] = []  # of each forward: sample → its length and its draw

    class Noted(Poisoned):
        def forward(self, batch):
            found = zip(batch.ids, batch.document_lengths, batch.world_token_counts, strict=True)
            seen.append({name: (length, count) for name, length, count in found})
            return super().forward(batch)

    def module():
        return Noted(base=base, stages=one_stage(20, world_projector=1e-2), **MODEL, **DRAWN)

    with pytest.raises(RuntimeError, match="expected finite numbers"):
        make_trainer(NonFiniteGuard()).fit(module(), datamodule=make_data(**DATA_DRAWN, seed=1))
    (folder,) = (tmp_path / "nonfinite").iterdir()
    again = Replay(folder)
    seen.clear()
    make_trainer(again, max_steps=again.step + 1).fit(module(), datamodule=make_data(**DATA_DRAWN, seed=1))
    together, *alone = seen
    assert len(together) == len(alone) > 1
    assert {name: found for one in alone for name, found in one.items()} == together
    assert 1 in {count for _, count in together.values()}
    assert str(again.findings.losses[0]) == again.dumps[0].micro_batches[0].loss
    assert list(again.findings.samples) == [SAMPLE]

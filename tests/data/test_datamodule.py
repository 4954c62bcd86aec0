"""Through Lightning's own trainer: what is trained, what a resumed run trains, and settings that are refused."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.tiny import QUIET_TRAINER

ROWS = 22


class Recorder(LightningModule):
    """Trains one number and notes which samples it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.validated, self.asked, self.steps = [], [], [], []

    def training_step(self, batch):
        self.seen.append(batch.ids)
        self.steps.append(self.global_step)
        return self.weight.sum() * batch.num_target_tokens / batch.step_target_tokens

    def validation_step(self, batch):
        self.validated.append(batch.ids)

    def test_step(self, prompts):
        self.asked += [question.id for question in prompts.questions]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def _trainer(tmp_path, **changes):
    settings = QUIET_TRAINER | {"accumulate_grad_batches": 2, "default_root_dir": tmp_path}
    return Trainer(**settings | ({} if "max_steps" in changes else {"max_epochs": 3}) | changes)


def test_lightning_trains_every_row_once_an_epoch(make_data, tmp_path, capsys):
    model, data = Recorder(), make_data()
    _trainer(tmp_path).fit(model, data)
    per_epoch = len(data.train_dataloader())
    assert len(model.seen) == 3 * per_epoch
    for epoch in range(3):
        names = [name for ids in model.seen[epoch * per_epoch : (epoch + 1) * per_epoch] for name in ids]
        assert sorted(names) == sorted(f"row-{i}" for i in range(ROWS))
    assert model.steps == [i // 2 for i in range(3 * per_epoch)]
    assert model.weight.item() == pytest.approx(-3 * per_epoch / 4)  # each step: sum of shares 1, halved by Lightning
    sanity = 2  # Lightning's sanity check of the validation loader, which must not move it
    once = (len(model.validated) - sanity) // 3
    assert model.validated[:sanity] == model.validated[sanity : 2 * sanity]
    assert sorted(n for ids in model.validated[-once:] for n in ids) == sorted(f"row-{i}" for i in range(ROWS))
    printed = capsys.readouterr().out
    assert "train: 22 rows, 22 ok" in printed
    assert f"train: {per_epoch // 2} steps an epoch of 2 rows of 400 tokens" in printed


SAVERS = {
    "after every step": {"every_n_train_steps": 1},
    "after every epoch": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
    "after every validation": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
}


@pytest.mark.parametrize("length", [{"max_epochs": 3}, {"max_steps": 12}], ids=["epochs", "steps"])
@pytest.mark.parametrize("saved", SAVERS)
def test_resumed_run_trains_exactly_the_rest(make_data, tmp_path, saved, length):
    """From checkpoints in mid-epoch and at its end: the samples that follow are those of the unbroken run."""
    saver = ModelCheckpoint(tmp_path / "ckpt", save_top_k=-1, **SAVERS[saved])
    through = Recorder()
    _trainer(tmp_path, enable_checkpointing=True, callbacks=[saver], **length).fit(through, make_data())
    assert len(through.seen) == 24  # 3 epochs of 4 steps of 2 rows
    checkpoints = sorted((tmp_path / "ckpt").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert len(checkpoints) == (12 if saved == "after every step" else 3)
    for checkpoint in checkpoints[::3] if saved == "after every step" else checkpoints:
        done = 2 * int(checkpoint.stem.split("step=")[1])
        resumed = Recorder()
        _trainer(tmp_path, **length).fit(resumed, make_data(), ckpt_path=checkpoint, weights_only=True)
        assert resumed.seen == through.seen[done:], checkpoint.name
        assert torch.equal(resumed.weight, through.weight)


def test_resuming_with_another_seed_is_refused(make_data, tmp_path):
    saver = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=1)
    trainer = _trainer(tmp_path, enable_checkpointing=True, callbacks=[saver], max_steps=1)
    trainer.fit(Recorder(), make_data())
    with pytest.raises(ValueError, match=r"cannot resume .* seed \(saved 5, now 6\)"):
        _trainer(tmp_path).fit(Recorder(), make_data(seed=6), ckpt_path=saver.best_model_path, weights_only=True)


def test_prompts_reach_the_test_step(make_data, tmp_path):
    model = Recorder()
    _trainer(tmp_path).test(model, make_data(test_batch_size=4), verbose=False)
    assert model.asked == [f"row-{i}" for i in range(ROWS)]


def test_world_off_has_no_world_anywhere(make_data):
    data = make_data(enable_world=False)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.world_pixel_values.shape[0] == 0
    assert data.processor.world_token_id not in batch.input_ids
    with_world = make_data()
    with_world.setup("fit")
    other = next(iter(with_world.train_dataloader()))
    assert (other.input_ids == data.processor.world_token_id).sum() == 5 * len(other.ids)
    assert other.world_pixel_values.shape == (len(other.ids), 3, 16, 16)


def test_step_size_must_match_the_trainer(make_data, tmp_path):
    with pytest.raises(ValueError, match="accumulate_grad_batches=3 x 1 devices = 3 rows a step, expected .*=2"):
        _trainer(tmp_path, accumulate_grad_batches=3).fit(Recorder(), make_data())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_budget": 299}, "token_budget is 299, expected at least max_seq_length=300"),
        ({"num_world_tokens": 300}, "max_seq_length is 300, expected more than num_world_tokens=300"),
        ({"train_images": None}, "train_images=None, expected both or neither"),
        ({"micro_batches_per_step": 0}, "micro_batches_per_step is 0"),
        ({"test_batch_size": 0}, "test_batch_size is 0"),
        ({"region_style": "dots"}, "region_style is 'dots'"),
    ],
)
def test_bad_settings_are_refused_at_once(make_data, changes, message):
    with pytest.raises(ValueError, match=message):
        make_data(**changes)


def test_missing_split_and_too_short_samples(make_data):
    data = make_data(val_path=None, val_images=None, train_path=None, train_images=None)
    data.setup("fit")
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match="there are no train rows: found train_path=None"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="max_seq_length is 17, expected more than the 17 tokens"):
        make_data(max_seq_length=17).setup("fit")

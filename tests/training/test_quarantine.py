"""Samples that cannot be read: recorded, without influence on the step, and not too many of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.tiny import osd_row, write_osd
from tests.training.conftest import one_stage
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.events import read_events

pytestmark = pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")
ROWS = 6


class Damage(Callback):
    """Damages images after they were indexed, and counts what the gradient is scaled by."""

    def __init__(self, *paths: Path):
        self.paths = paths
        self.corrections: list[float] = []

    def on_fit_start(self, trainer, pl_module):
        for path in self.paths:
            path.write_bytes(b"no image")

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self.corrections.append(pl_module.loss_correction)


@pytest.fixture
def rows(tmp_path) -> dict[str, str]:
    """Six rows of different numbers of targets, all in one packed row: one optimizer step an epoch."""
    path, images = write_osd(tmp_path, [osd_row(i, answer="Yes" + "." * i) for i in range(ROWS)])
    return {"train_path": str(path), "train_images": str(images), "token_budget": 1000}


@pytest.fixture
def image(rows):
    return lambda number: Path(rows["train_images"]) / f"img{number}.png"


def _lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]


def test_every_failure_is_written_down_and_corrected(make_module, make_data, make_trainer, rows, image, tmp_path):
    damage, quarantine = Damage(image(2)), Quarantine()
    trainer = make_trainer(damage, quarantine)
    trainer.fit(make_module(stages=one_stage(2, world_projector=1e-2)), datamodule=make_data(**rows))
    lines = _lines(tmp_path)
    assert [(line["step"], line["epoch"], line["id"]) for line in lines] == [(0, 0, "row-2"), (1, 1, "row-2")]
    assert "img2.png" in lines[0]["reason"]
    assert quarantine.failed == ["row-2"]
    targets = [len("Yes") + number + 1 for number in range(ROWS)]  # bytes of the answer and the end of the turn
    assert lines[0]["targets"] == targets[2]
    assert damage.corrections == [pytest.approx(sum(targets) / (sum(targets) - targets[2]))] * 2


def test_without_failures_nothing_happens(make_module, make_data, make_trainer, rows, tmp_path):
    damage, trained = Damage(), []
    for callbacks in ([damage, Quarantine()], []):
        module = make_module(stages=one_stage(2, world_projector=1e-2))
        make_trainer(*callbacks).fit(module, datamodule=make_data(**rows))
        trained.append(list(module.world.parameters()))
    assert damage.corrections == [1.0, 1.0]
    assert not (tmp_path / "quarantine.jsonl").exists()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*trained, strict=True))


def test_too_many_stop_the_run(make_module, make_data, make_trainer, rows, image, tmp_path):
    """Different samples count, not how often one fails: five epochs of two bad samples are two."""
    module = make_module(stages=one_stage(5, world_projector=1e-2))
    make_trainer(Damage(image(1), image(2)), Quarantine(max_failures=2)).fit(module, datamodule=make_data(**rows))
    assert len(_lines(tmp_path)) == 10
    write_osd(tmp_path, [osd_row(i, answer="Yes" + "." * i) for i in range(ROWS)])  # whole again, to be indexed
    module = make_module(stages=one_stage(5, world_projector=1e-2))
    trainer = make_trainer(Damage(image(1), image(2), image(4)), Quarantine(max_failures=2))
    expected = r"found 3 samples .* max_failures=2, the last because: .*img\d.png.* listed in .*quarantine.jsonl"
    with pytest.raises(RuntimeError, match=expected):
        trainer.fit(module, datamodule=make_data(**rows))
    assert len(_lines(tmp_path)) == 13  # those of the step that stopped it included
    assert trainer.global_step == 0


def test_a_step_whose_every_sample_fails_moves_nothing(make_module, make_data, make_trainer, rows, image, tmp_path):
    module = make_module(stages=one_stage(1, world_projector=1e-2))
    make_trainer(Damage(*map(image, range(ROWS))), Quarantine()).fit(module, datamodule=make_data(**rows))
    fresh = make_module(stages=one_stage(1, world_projector=1e-2))
    make_trainer(max_steps=0).fit(fresh, datamodule=make_data(**_again(rows, tmp_path)))
    assert len(_lines(tmp_path)) == ROWS
    named = dict(fresh.world.named_parameters())
    assert all(torch.equal(parameter, named[name]) for name, parameter in module.world.named_parameters())


def _again(rows: dict[str, str], folder: Path) -> dict[str, str]:
    write_osd(folder, [osd_row(i, answer="Yes" + "." * i) for i in range(ROWS)])
    return rows


def test_a_resumed_run_goes_on_counting(make_module, make_data, make_trainer, rows, image, tmp_path):
    stages = one_stage(2, world_projector=1e-2)
    saver = ModelCheckpoint(dirpath=tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = make_trainer(Damage(image(1)), Quarantine(), saver, enable_checkpointing=True, max_steps=1)
    trainer.fit(make_module(stages=stages), datamodule=make_data(**rows))
    resumed = Quarantine(max_failures=1)
    trainer = make_trainer(Damage(image(3)), resumed)
    path = tmp_path / "saved" / "step=1.ckpt"
    with pytest.raises(RuntimeError, match="found 2 samples"):
        trainer.fit(make_module(stages=stages), datamodule=make_data(**_again(rows, tmp_path)), ckpt_path=path)
    assert resumed.failed == ["row-1", "row-3"]
    assert [line["id"] for line in _lines(tmp_path)] == ["row-1", "row-3"]


def test_without_the_callback_the_first_failure_stops_the_run(make_module, make_data, make_trainer, rows, image):
    expected = r"row-2 could not be read: .*img2.png.* add .*Quarantine to trainer.callbacks"
    with pytest.raises(ValueError, match=expected):
        make_trainer(Damage(image(2))).fit(make_module(), datamodule=make_data(**rows))


def test_a_negative_limit_is_refused():
    with pytest.raises(ValueError, match="found max_failures=-1"):
        Quarantine(max_failures=-1)


def test_failures_are_events_as_well(make_module, make_data, make_trainer, rows, image, tmp_path):
    module = make_module(stages=one_stage(1, world_projector=1e-2))
    make_trainer(Damage(image(2)), Quarantine()).fit(module, datamodule=make_data(**rows))
    (event,) = read_events(tmp_path, "sample_quarantined")
    assert (event["step"], event["id"], event["reason"]) == (0, "row-2", _lines(tmp_path)[0]["reason"])
    assert [(event["step"], event["stage"]) for event in read_events(tmp_path, "stage_finished")] == [(1, "only")]

"""Stages as runs of their own, each from the export of the one before, against all of them in one run.

Equal means: the weights at the hand-off are the same, bit for bit. From there on, given the same rows, a group that did
not train before does exactly what it does in one run: same rate, same warmup, no optimizer state. A group that trained
before differs by design: one run carries its optimizer state on and does not warm it up again. The rows differ too
unless they are asked for, because every run begins its data at the beginning.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from theworld.models.theworld import TheWorld
from theworld.training.callbacks.stage_export import StageExport
from theworld.training.callbacks.stage_validation import StageValidation
from theworld.training.stages import LearningRates, Stage

PROJECTION = Stage(learning_rates=LearningRates(world_projector=1e-2), max_steps=2, warmup_steps=1)
LANGUAGE = Stage(learning_rates=LearningRates(language=1e-3), max_steps=3, warmup_steps=2)
BOTH = replace(LANGUAGE, learning_rates=LearningRates(world_projector=1e-2, language=1e-3))


class Losses(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


@pytest.fixture
def fit(make_module, make_data, make_trainer, tmp_path):
    """Losses, weights and validation losses of a run, which exports to and saves in a folder of its own."""

    def run(name: str, stages: dict[str, Stage], *, rows_from=None, **changes: str):
        seen, measured = Losses(), StageValidation()
        saver = ModelCheckpoint(tmp_path / name / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
        root = {"default_root_dir": tmp_path / name, "limit_val_batches": 1.0, "check_val_every_n_epoch": 100}
        trainer = make_trainer(seen, measured, StageExport(), saver, enable_checkpointing=True, **root)
        module, data = make_module(stages=stages, **changes), make_data(**changes)
        if rows_from is not None:
            data.load_state_dict(torch.load(rows_from, weights_only=True)["OSDDataModule"])
        trainer.fit(module, datamodule=data)
        return seen.losses, {n: p.detach().clone() for n, p in module.world.named_parameters()}, measured.losses

    return run


@pytest.mark.parametrize("second", ["a new group", "a new group and one that trained before"])
def test_separate_runs_are_one_run(fit, tmp_path, second):
    stage = {"a new group": LANGUAGE}.get(second, BOTH)
    whole, weights, measured = fit("whole", {"projection": PROJECTION, "language": stage})
    first, _, alone = fit("first", {"projection": PROJECTION})
    assert first == whole[:2]
    exports = [TheWorld.from_pretrained(tmp_path / run / "export" / "projection") for run in ("whole", "first")]
    for (name, ours), (_, theirs) in zip(*(export.named_parameters() for export in exports), strict=True):
        assert torch.equal(ours, theirs), name

    base = {"base": str(tmp_path / "first" / "export" / "projection")}
    rows = tmp_path / "whole" / "saved" / "step=2.ckpt"
    then, separate, after = fit("second", {"language": stage}, rows_from=rows, **base)
    # Weights and training are the same bit for bit; whether the projector is frozen decides a validation's last bit.
    expected = pytest.approx(measured["projection"]["after"], rel=1e-6)
    assert after["language"]["before"] == expected
    assert alone["projection"]["after"] == expected
    assert measured["projection"]["before"] != expected  # control
    assert then[0] == whole[2]  # the weights are the same, and the rows
    if stage is LANGUAGE:
        assert then == whole[2:]
        assert all(torch.equal(weight, weights[name]) for name, weight in separate.items())
    else:  # control, and what differs by design
        assert then[1:] != whole[3:]
        assert not torch.equal(
            separate["cosmos_encoder.projector.layers.0.weight"], weights["cosmos_encoder.projector.layers.0.weight"]
        )
    others, _, _ = fit("other rows", {"language": stage}, **base)
    assert others[0] != whole[2]  # control: the first rows of the plan are others

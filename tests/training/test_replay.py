"""A step that was not finite, made again from what was kept: in the process, from two ranks, and by the command."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
import torch

from tests.training.conftest import DATA, MODEL, one_stage
from tests.training.poisoned import SAMPLE, Poisoned, train_poisoned
from tests.training.ranks import Ranks
from theworld.cli import main
from theworld.training.callbacks.nonfinite import NonFiniteGuard
from theworld.training.nonfinite.dump import generator_states, set_generators
from theworld.training.nonfinite.replay import Replay, report

pytestmark = pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")


@pytest.fixture
def replay(base, make_data, make_trainer):
    """Make a step again, on one device."""

    def run(folder, *, poison="loss", ranks=1, **data: object) -> Replay:
        module = Poisoned(base=base, stages=one_stage(20, world_projector=1e-2), **MODEL)
        module.poison = poison
        again = Replay(folder)
        trainer = make_trainer(again, accumulate_grad_batches=ranks, max_steps=again.step + 1)
        trainer.fit(module, datamodule=make_data(micro_batches_per_step=ranks, **data))
        return again

    return run


@pytest.fixture
def stopped(base, make_data, make_trainer, tmp_path):
    def run(poison: str):
        module = Poisoned(base=base, stages=one_stage(20, world_projector=1e-2), **MODEL)
        module.poison = poison
        with pytest.raises(RuntimeError, match="expected finite numbers"):
            make_trainer(NonFiniteGuard()).fit(module, datamodule=make_data())
        (folder,) = (tmp_path / "nonfinite").iterdir()
        return folder

    return run


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_the_step_the_sample_and_the_place_are_found(stopped, replay, poison):
    folder = stopped(poison)
    again = replay(folder, poison=poison)
    kept = again.dumps[0]
    assert again.step > 0
    assert str(again.findings.losses[0]) == kept.micro_batches[0].loss  # to the last bit
    assert sorted(again.findings.gradients) == sorted(kept.gradients)
    assert list(again.findings.samples) == [SAMPLE]
    assert again.findings.is_reproduced
    text = report(again)
    assert f"Step {again.step}, made again\n" in text
    assert f"{SAMPLE} alone: not finite, first in" in text
    assert "the gradient of cosmos_encoder.projector" in text


def test_a_step_that_is_finite_this_time_is_said_to_be(stopped, replay):
    again = replay(stopped("loss"), poison="none")
    assert not again.findings.is_reproduced
    assert "finite this time" in report(again)
    assert "each sample alone is finite" in report(again)


def test_other_samples_and_other_weights_are_refused(stopped, replay):
    folder = stopped("loss")
    with pytest.raises(ValueError, match=r"found the samples .* in micro-batch 0 of step \d, expected"):
        replay(folder, seed=5)
    (folder / "rank-0.safetensors").rename(folder / "kept")
    shutil.copy(folder / "kept", folder / "weights.safetensors")
    with pytest.raises(ValueError, match="found weights that differ from those model.stages trains in"):
        replay(folder)


@pytest.mark.slow
def test_a_step_of_two_ranks_is_made_again_on_one(base, osd, replay, tmp_path):
    data = {"base": base} | DATA | {name: path for name, path in osd.items() if name.startswith("train")}
    runs = {"data": data, "model": {"base": base} | MODEL, "poison": "loss", "guarded": True}
    Ranks(train_poisoned, world_size=2, folder=tmp_path, **runs).wait()
    (folder,) = (tmp_path / "nonfinite").iterdir()
    again = replay(folder, ranks=2)
    assert list(again.findings.samples) == [SAMPLE]
    assert [str(loss) == "nan" for loss in again.findings.losses] == [
        dump.micro_batches[0].loss == "nan" for dump in again.dumps
    ]


def test_generators_go_on_from_where_they_were():
    random.gauss(0, 1), np.random.normal()  # both keep a spare number
    states = generator_states()

    def drawn() -> list[float]:
        return [random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), float(torch.rand(()))]

    first, second = drawn(), drawn()
    set_generators(states)
    assert drawn() == first != second


def test_the_command(base, osd, tmp_path, monkeypatch, capsys):
    """A learning rate that overflows, stopped by the standing callback; replayed with the run's own settings."""
    monkeypatch.setattr("sys.argv", ["theworld"])
    config = {
        "trainer": {"accelerator": "cpu", "devices": 1, "default_root_dir": str(tmp_path), "logger": False}
        | {"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0},
        "model": {"base": base, "world_image_size": 16, "dtype": "float32"}
        | {"stages": {"only": {"learning_rates": {"language": 1e25}, "max_steps": 20}}},
        "data": {"token_budget": 256, "max_seq_length": 192} | {n: p for n, p in osd.items() if n.startswith("train")},
    }
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="expected finite numbers"):
        main(["fit", f"--config={settings}"])
    (folder,) = (tmp_path / "nonfinite").iterdir()
    for changes, code, line in (([], 0, "made again\n"), (["--data.seed=1"], "found the samples", "")):
        with pytest.raises(SystemExit) as stop:
            main(["replay", str(folder), f"--config={settings}", *changes])
        assert stop.value.code == code or str(code) in stop.value.code
        assert line in capsys.readouterr().out
    with pytest.raises(SystemExit, match="found no folder, expected"):
        main(["replay", f"--config={settings}"])

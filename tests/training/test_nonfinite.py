"""Losses and gradients that are no numbers: what each policy leaves of weights and optimizer, and what is kept."""

from __future__ import annotations

import json
import math

import pytest
import torch
from lightning.pytorch import Callback

from tests.training.conftest import DATA, MODEL, one_stage
from tests.training.poisoned import SAMPLE, Poisoned, Snapshots, train_poisoned
from tests.training.ranks import Ranks
from theworld.training.callbacks.nonfinite import NonFiniteGuard
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.checkpoints.newest import newest_checkpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories
from theworld.training.events import read_events
from theworld.training.nonfinite.dump import read_dump, read_weights

pytestmark = pytest.mark.filterwarnings("ignore:optimizer step:UserWarning", "ignore:Stopped at optimizer:UserWarning")
MORE = [(False, "gradient", 1), (False, "loss", 2), (False, "gradient", 2)]
MORE += [(True, "loss", 1), (True, "gradient", 1), (True, "loss", 2)]
OPTIMIZERS = pytest.mark.parametrize("fused", [False, True])


@pytest.fixture
def run(base, make_data, make_trainer, tmp_path):
    """Fit to the end, or to the error that is expected; what it looked like before each step."""

    def fit(
        *callbacks: Callback, fused=False, poison="loss", error=None, steps=8, accumulate=1, **changes
    ) -> Snapshots:
        torch.manual_seed(0)
        module = Poisoned(base=base, stages=one_stage(steps, world_projector=1e-2), **MODEL)
        module.poison, module.fused = poison, fused
        snapshots = Snapshots()
        trainer = make_trainer(snapshots, *callbacks, accumulate_grad_batches=accumulate, **changes)
        data = make_data(micro_batches_per_step=accumulate)
        if error is None:
            trainer.fit(module, datamodule=data)
        else:
            with pytest.raises(RuntimeError, match=error):
                trainer.fit(module, datamodule=data)
            snapshots._take(trainer, module)
        return snapshots

    return fit


def _same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _bad_steps(snapshots: Snapshots, accumulate: int = 1) -> list[int]:
    return sorted({place // accumulate for place, ids in enumerate(snapshots.ids) if SAMPLE in ids})


def test_without_the_guard_the_weights_are_lost(run):
    """Control."""
    snapshots = run(steps=7)
    (bad,) = _bad_steps(snapshots)
    assert any(not w.isfinite().all() for w in snapshots.weights[bad + 1].values())


@pytest.mark.parametrize(("fused", "poison"), [(False, "gradient"), (True, "loss")])
def test_stop_is_before_the_update_and_keeps_the_step(run, tmp_path, fused, poison):
    expected = r"optimizer step \d: found .* on the ranks \[0\], expected finite numbers; .*`theworld replay"
    snapshots = run(NonFiniteGuard(), fused=fused, poison=poison, error=expected)
    (bad,) = _bad_steps(snapshots)
    assert _same(snapshots.weights[-1], snapshots.weights[bad])
    assert not _same(snapshots.weights[bad], snapshots.weights[bad - 1])  # control: a step does something
    folder = tmp_path / "nonfinite" / f"step={bad}"
    (dump,) = read_dump(folder)
    assert (dump.step, dump.epoch, dump.policy) == (bad, 0, "stop")
    assert [batch.ids for batch in dump.micro_batches] == [snapshots.ids[bad]]
    assert math.isnan(float(dump.micro_batches[0].loss)) == (poison == "loss")
    assert dump.gradients
    assert all("projector" in name for name in dump.gradients)
    assert all(torch.equal(w, snapshots.weights[bad][name]) for name, w in read_weights(folder).items())
    (event,) = read_events(tmp_path, "nonfinite")
    assert (event["event"], event["step"], event["policy"], event["dump"]) == ("nonfinite", bad, "stop", str(folder))


@pytest.mark.parametrize(
    ("fused", "poison", "accumulate"),
    [(False, "loss", 1), (True, "gradient", 2), *(pytest.param(*p, marks=pytest.mark.slow) for p in MORE)],
)
def test_skip_leaves_weights_and_optimizer_as_they_were(run, tmp_path, fused, poison, accumulate):
    guard = NonFiniteGuard(policy="skip")
    snapshots = run(guard, fused=fused, poison=poison, accumulate=accumulate, gradient_clip_val=1.0)
    bad = _bad_steps(snapshots, accumulate)
    assert guard.incidents == bad == [event["step"] for event in read_events(tmp_path, "nonfinite")]
    for step in range(8):
        before, after = (snapshots.weights[step], snapshots.weights[step + 1])
        assert _same(before, after) == (step in bad)
        assert _same(snapshots.states[step], snapshots.states[step + 1]) == (step in bad)
    assert all(w.isfinite().all() for w in snapshots.weights[-1].values())


def test_a_skipped_step_is_as_if_its_samples_were_not_there(run):
    """The guard changes nothing else: later steps are those of a run whose update was left out by hand."""

    class LeftOut(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if trainer.global_step in bad:
                optimizer.zero_grad()

    skipped = run(NonFiniteGuard(policy="skip"))
    bad = _bad_steps(skipped)
    assert _same(skipped.weights[-1], run(LeftOut(), poison="none").weights[-1])
    assert not _same(skipped.weights[-1], run(poison="none").weights[-1])  # control


@OPTIMIZERS
def test_rollback_takes_the_weights_and_moments_of_the_newest_checkpoint(run, tmp_path, fused):
    saver = CrashSafeCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=2)
    saving = {"enable_checkpointing": True, "plugins": [CheckpointDirectories()]}
    guard = NonFiniteGuard(policy="rollback")
    snapshots = run(guard, saver, fused=fused, **saving)
    bad = _bad_steps(snapshots)
    assert guard.incidents == bad
    (first, *_), events = bad, read_events(tmp_path, "nonfinite")
    newest = first // 2 * 2
    assert first > newest > 0, "a test of another seed: nothing was made since the checkpoint"
    assert events[0]["checkpoint"] == str(tmp_path / "saved" / f"step={newest}.ckpt")
    assert _same(snapshots.weights[first + 1], snapshots.weights[newest])
    assert _same(snapshots.states[first + 1], snapshots.states[newest])
    assert not _same(snapshots.weights[first], snapshots.weights[newest])  # control
    assert not _same(snapshots.weights[first + 2], snapshots.weights[first + 1])  # and on it goes


def test_rollback_without_a_checkpoint_stops(run):
    run(NonFiniteGuard(policy="rollback"), error="found no checkpoint of this run that verifies, expected one to roll")


def test_rollback_takes_no_checkpoint_of_another_run(run, tmp_path):
    """They lie in one folder; the one that verifies, is the newest and has made more steps is not ours."""
    saving = {"enable_checkpointing": True, "plugins": [CheckpointDirectories()]}
    run(CrashSafeCheckpoint(tmp_path / "saved", every_n_train_steps=8), poison="none", **saving)
    (foreign,) = (tmp_path / "saved").glob("*.ckpt")
    saver = CrashSafeCheckpoint(tmp_path / "saved", every_n_train_steps=100)
    run(NonFiniteGuard(policy="rollback"), saver, error="found no checkpoint of this run that verifies", **saving)
    assert newest_checkpoint(tmp_path / "saved") == (foreign, [])  # control: that is the one that `last` would take


def test_too_many_incidents_stop_the_run(run, tmp_path):
    guard = NonFiniteGuard(policy="skip", max_incidents=1)
    snapshots = run(guard, steps=20, error="the incident after max_incidents=1")
    assert len(_bad_steps(snapshots)) == 2
    assert [event["policy"] for event in read_events(tmp_path, "nonfinite")] == ["skip", "stop"]


def test_no_checkpoint_is_written_after_a_step_to_stop_at(run, tmp_path):
    """The fused optimizer's answer is read one step later, or when something is saved."""
    saver = CrashSafeCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=1)
    saving = {"enable_checkpointing": True, "plugins": [CheckpointDirectories()]}
    snapshots = run(NonFiniteGuard(), saver, fused=True, error="expected finite numbers", **saving)
    (bad,) = _bad_steps(snapshots)
    assert newest_checkpoint(tmp_path / "saved")[0] == tmp_path / "saved" / f"step={bad}.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("poison", ["loss", "constant"])
def test_a_loss_on_one_rank_stops_all_before_the_update(base, osd, tmp_path, poison):
    """The constant leaves every gradient finite, so that the other rank knows of it from the exchange alone."""
    first, second = _two_ranks(base, osd, tmp_path, poison=poison, guarded=True)
    assert "expected finite numbers" in first["stopped"]
    assert "expected finite numbers" in second["stopped"]
    assert first["step"] == second["step"] < 6
    assert all(torch.equal(first["weights"][name], weight) for name, weight in second["weights"].items())
    folder = tmp_path / "nonfinite" / f"step={first['step']}"
    dumps = read_dump(folder)
    (poisoned,) = [dump.rank for dump in dumps if SAMPLE in dump.micro_batches[0].ids]
    finite = [math.isfinite(float(dump.micro_batches[0].loss)) for dump in dumps]
    assert finite == [rank != poisoned for rank in range(2)]
    assert all(torch.equal(first["weights"][name], weight) for name, weight in read_weights(folder).items())


@pytest.mark.slow
def test_without_the_guard_both_ranks_are_lost(base, osd, tmp_path):
    """Control."""
    for record in _two_ranks(base, osd, tmp_path, poison="loss", guarded=False):
        assert any(not weight.isfinite().all() for weight in record["weights"].values())


def _two_ranks(base, osd, folder, *, poison: str, guarded: bool) -> list[dict]:
    data = {"base": base} | DATA | {name: path for name, path in osd.items() if name.startswith("train")}
    runs = {"data": data, "model": {"base": base} | MODEL, "poison": poison, "guarded": guarded}
    Ranks(train_poisoned, world_size=2, folder=folder, **runs).wait()
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


def test_a_damaged_or_incomplete_account_is_refused(run, tmp_path):
    snapshots = run(NonFiniteGuard(), error="expected finite numbers")
    folder = tmp_path / "nonfinite" / f"step={_bad_steps(snapshots)[0]}"
    account = json.loads((folder / "rank-0.json").read_text())
    (folder / "rank-0.json").write_text(json.dumps(account | {"world_size": 2}))
    with pytest.raises(ValueError, match=r"found the accounts of ranks \[0\], expected all 2"):
        read_dump(folder)
    (folder / "rank-0.json").write_text(json.dumps(account | {"format": 9}))
    with pytest.raises(ValueError, match=r"found ValueError format 9, expected a step of format 1"):
        read_dump(folder)
    with pytest.raises(ValueError, match=r"found no rank-\*.json"):
        read_dump(tmp_path)


@pytest.mark.parametrize("settings", [{"policy": "ignore"}, {"max_incidents": -1}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match=f"found {next(iter(settings))}="):
        NonFiniteGuard(**settings)

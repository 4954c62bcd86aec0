"""Lightning's counters and the validation interval when a step has another number of micro-batches than before."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from lightning.pytorch.loops.progress import _BatchProgress

from theworld.training.resumption import ProgressUnit, UnitState


def _stub(*, accumulate: int, interval: float, processed: int = 6, unfinished: int = 0) -> SimpleNamespace:
    progress = _BatchProgress()
    for counts in (progress.total, progress.current):
        counts.ready = counts.started = counts.processed = processed
        counts.completed = processed - unfinished
    return SimpleNamespace(
        accumulate_grad_batches=accumulate,
        val_check_interval=interval,
        val_check_batch=interval,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )


def _resumed(stub: SimpleNamespace, state: UnitState) -> tuple[str | None, UnitState]:
    """What a run says when it begins from `state`, and what it would save."""
    unit = ProgressUnit()
    unit.load(state)
    return unit.begin(stub), unit.state(stub)


@pytest.mark.parametrize(("saved", "now", "expected"), [(2, 4, 12), (4, 1, 3), (4, 2, 6)])
@pytest.mark.parametrize("unfinished", [0, 1], ids=["after an epoch", "in on_train_batch_end"])
def test_counters_in_the_new_unit(saved, now, expected, unfinished):
    """Three steps of `saved` micro-batches each are three of `now`."""
    stub = _stub(accumulate=now, interval=8, processed=3 * saved, unfinished=unfinished)
    said, _ = _resumed(stub, {"counters": saved, "val_check_interval": 8, "interval": saved})
    progress = stub.fit_loop.epoch_loop.batch_progress
    for counts in (progress.total, progress.current):
        assert (counts.ready, counts.started, counts.processed) == (expected,) * 3
        assert counts.completed == expected - unfinished
    assert stub.val_check_batch == 8 * now / saved
    assert f"Resumed with {now} micro-batches a step and rank, no longer {saved}, validation every" in said


def test_an_interval_keeps_its_meaning_however_often_the_run_is_resumed():
    """Set to 8 where a step had 2 micro-batches, it means every fourth step, on whatever devices."""
    first = ProgressUnit()
    assert first.begin(_stub(accumulate=2, interval=8)) is None
    state = first.state(_stub(accumulate=2, interval=8))
    for accumulate in (4, 4, 1, 2):
        stub = _stub(accumulate=accumulate, interval=8)
        _, state = _resumed(stub, state)
        assert stub.val_check_batch == 4 * accumulate
    changed = _stub(accumulate=4, interval=16)
    _, state = _resumed(changed, state)
    assert changed.val_check_batch == 16  # set anew: taken as it is, and remembered so
    stub = _stub(accumulate=1, interval=16)
    _resumed(stub, state)
    assert stub.val_check_batch == 4


@pytest.mark.parametrize("interval", [1.0, 0.5])
def test_an_interval_in_epochs_needs_nothing(interval):
    stub = _stub(accumulate=4, interval=interval)
    _resumed(stub, {"counters": 2, "val_check_interval": None, "interval": 2})
    assert stub.val_check_batch == interval


def test_on_as_many_devices_nothing_changes():
    stub = _stub(accumulate=2, interval=8, unfinished=1)
    said, state = _resumed(stub, {"counters": 2, "val_check_interval": 8, "interval": 2})
    assert said is None
    assert state == {"counters": 2, "val_check_interval": 8, "interval": 2}
    assert stub.fit_loop.epoch_loop.batch_progress.total.completed == 5
    assert stub.val_check_batch == 8

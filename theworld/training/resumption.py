"""A run that goes on with another number of devices: Lightning's counters of micro-batches in the new unit.

Lightning counts the micro-batches of a rank. A step has `micro_batches_per_step / devices` of them, so with other
devices the saved counts mean other steps: gradients would be accumulated over parts of two steps, and epochs and
validations would come at the wrong time.
"""

from __future__ import annotations

from typing import TypedDict

from lightning.pytorch import Trainer


class UnitState(TypedDict):
    """What a checkpoint says: micro-batches of a step and rank, for the counters and for the validation interval."""

    counters: int
    val_check_interval: float | None
    interval: int


class ProgressUnit:
    """Remembers how many micro-batches a step had, and brings a resumed run's counters into today's unit.

    A `trainer.val_check_interval` in micro-batches that is still what it was is rescaled as well, so that validation
    stays as many optimizer steps apart. One that was changed is taken as it is.
    """

    def __init__(self) -> None:
        self._saved: UnitState | None = None
        self._interval = 0

    def state(self, trainer: Trainer) -> UnitState:
        """For a checkpoint."""
        return {
            "counters": trainer.accumulate_grad_batches,
            "val_check_interval": _in_batches(trainer),
            "interval": self._interval,
        }

    def load(self, state: UnitState | None) -> None:
        """From a checkpoint; takes effect when training begins."""
        self._saved = state

    def begin(self, trainer: Trainer) -> str | None:
        """To be called when loops are restored and loaders are there, before the first batch.

        Returns:
            What was changed, to be printed; None if nothing was.
        """
        saved, self._saved = self._saved, None
        now = trainer.accumulate_grad_batches
        self._interval = now
        if saved is None:
            return None
        changed = []
        if saved["counters"] != now:
            _rescale_counters(trainer, saved["counters"], now)
            changed.append(f"{now} micro-batches a step and rank, no longer {saved['counters']}")
        interval = _in_batches(trainer)
        if interval is not None and interval == saved["val_check_interval"]:
            self._interval = saved["interval"]
            if self._interval != now:
                trainer.val_check_batch = max(1, round(interval * now / self._interval))
                changed.append(f"validation every {trainer.val_check_batch} of them instead of {interval}")
        return f"Resumed with {', '.join(changed)}" if changed else None


def _in_batches(trainer: Trainer) -> int | None:
    """The interval between validations as it was set, if it counts micro-batches."""
    interval = trainer.val_check_interval
    return interval if isinstance(interval, int) else None


def _rescale_counters(trainer: Trainer, before: int, now: int) -> None:
    progress = trainer.fit_loop.epoch_loop.batch_progress
    for counts in (progress.total, progress.current):
        unfinished = counts.processed - counts.completed  # 1 if saved in on_train_batch_end
        counts.ready = counts.started = counts.processed = counts.processed * now // before
        counts.completed = counts.processed - unfinished

"""Signals that end a run early, noted and nothing more; Lightning's own handling of them, taken out of the way.

Lightning 2.6 saves inside the handler under SLURM, in the middle of a step, or leaves the loop wherever it is; its
handler of SIGTERM calls a collective; and with several devices every micro-batch begins with a broadcast that the host
waits for. None of this happens after `take_over`.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector


def take_over(trainer: Trainer) -> None:
    """Keep Lightning from handling signals in this trainer's fit; to be called before its loops are restored."""
    trainer._signal_connector = _NoSignals(trainer)
    if isinstance(trainer.fit_loop.epoch_loop, _EpochLoop):
        return
    loop = _EpochLoop(trainer)
    loop.__dict__.update(vars(trainer.fit_loop.epoch_loop))  # the same progress, limits and validation loop
    trainer.fit_loop.epoch_loop = loop


def leave_requeueing_to_the_exit_code(trainer: Trainer) -> None:
    """Keep Lightning from saving and requeueing by itself under SLURM, in any of its functions."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False


class _NoSignals(_SignalConnector):
    """Lightning's place for handlers, empty: `trainer.received_sigterm` stays False."""

    def register_signal_handlers(self) -> None:
        """None."""


class _EpochLoop(_TrainingEpochLoop):
    """Lightning's loop without the broadcast at the beginning of each micro-batch."""

    def _broadcast_sigterm_tensor(self) -> None:
        """`callbacks/preemption.py` agrees once a step, over gloo, without the device."""


class NotedSignals:
    """From `install` to `remove`, remembers the first of some signals, and calls for help when it is not heeded.

    The handler sets a flag. It runs between two lines of Python, so not while the main thread is stuck inside a
    library; a thread is told of the signal all the same, and calls `overdue` when `remove` does not come in time.

    Args:
        signals: Which ones.
        grace_seconds: From the signal to `overdue`.
        overdue: Called in that thread, with the signal's name.

    Attributes:
        received: Number of the first signal that came, 0 before.
    """

    def __init__(self, signals: Sequence[signal.Signals], *, grace_seconds: float, overdue: Callable[[str], None]):
        self.signals = signals
        self.grace_seconds = grace_seconds
        self.overdue = overdue
        self.received = 0
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._wakeup_before = -1
        self._pipe: tuple[int, int] | None = None
        self._removed = threading.Event()

    def install(self) -> None:
        """From the main thread; Python allows no other."""
        assert self._pipe is None, "installed already"
        self.received = 0
        self._removed.clear()
        reading, writing = self._pipe = os.pipe()
        os.set_blocking(writing, False)
        self._wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._note) for number in self.signals}
        threading.Thread(target=self._watch, args=(reading,), name="noted-signals", daemon=True).start()

    def remove(self) -> None:
        """Give the signals back to whom they belonged to. Does nothing if nothing is installed."""
        if self._pipe is None:
            return
        self._removed.set()
        for number, before in self._before.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._pipe[1])  # the thread reads the end of the pipe
        self._pipe = None

    def ignore(self) -> None:
        """Instead of giving them back: the process ends, and none of these signals changes its exit code any more."""
        if self._pipe is None:
            return
        self._before = dict.fromkeys(self.signals, _heard)
        self.remove()
        atexit.register(_ignore, self.signals)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or number

    def _watch(self, reading: int) -> None:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while byte := pipe.read(1):
                if byte[0] in self.signals and not self._removed.wait(self.grace_seconds):
                    self.overdue(signal.Signals(byte[0]).name)


def _heard(number: int, _: FrameType | None) -> None:
    """A handler that does nothing; unlike SIG_IGN it is not handed on to the programs that a process starts."""


def _ignore(signals: Sequence[signal.Signals]) -> None:
    """For the very end of the process, when Python takes its handlers away."""
    for number in signals:
        if signal.getsignal(number) is _heard:
            signal.signal(number, signal.SIG_IGN)

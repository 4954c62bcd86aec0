"""Worker processes of a loader outlive a signal that tells the whole job to end: the main process still needs them.

Schedulers signal every process of a job. A worker that died of it would fail the run before its step is complete and
saved (`theworld.training.callbacks.preemption`); one that inherited the main process's handlers would speak for it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def signals_wait() -> Iterator[None]:
    """In the parent, while it starts workers: SIGTERM and SIGUSR1 wait.

    Here until the end of this; in a new worker until it has called `obey_the_parent_only`, before which either would
    end it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_the_parent_only() -> None:
    """In a new worker process: ignore SIGUSR1, and SIGTERM unless the parent sends it, as PyTorch does to end one.

    Where the sender is not told (macOS), SIGTERM ends the worker whoever sends it.
    """
    signal.set_wakeup_fd(-1)  # a pipe that belongs to the parent
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    if not hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return
    # Blocked here and in all later threads, so that it waits for the one below, which alone is told who sent it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_the_parent, name="sigterm", daemon=True).start()


def _end_with_the_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)  # as PyTorch's own handler, which keeps the parent from reporting a dead worker

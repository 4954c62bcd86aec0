"""Signals to the whole job leave a loader's workers alone, also one that comes while a worker is being started."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext

import numpy as np
import pytest

from tests.counted_samples import CountedSamples
from theworld.data.packing import loader


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("waits", [True, False])
def test_a_signal_to_a_worker_that_has_not_begun(monkeypatch, number, waits):
    begin = loader._begin_worker

    def signalled(worker: int) -> None:
        os.kill(os.getpid(), number)  # not by the parent, just as a scheduler
        begin(worker)

    monkeypatch.setattr(loader, "_begin_worker", signalled)
    samples = CountedSamples(np.full(8, 20))
    batches = loader.PlanLoader(samples, budget=40, micro_batches_per_step=1, num_workers=1)
    if waits:
        assert len(list(batches)) == 4
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()  # here they do not wait any more
        return
    monkeypatch.setattr(loader, "signals_wait", nullcontext)  # control
    with pytest.raises(RuntimeError, match="worker"):
        list(batches)

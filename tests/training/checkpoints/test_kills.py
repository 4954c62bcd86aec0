"""SIGKILL at random moments of real saves."""

from __future__ import annotations

import random
import time

import pytest

from tests.training.checkpoints.saving_loop import newest_number, save_forever
from tests.training.ranks import Ranks


@pytest.mark.slow
def test_twenty_kills_and_no_torn_checkpoint(tmp_path):
    """The last save that was finished, or the one after it that nearly was, is there every time."""
    folder, ledger = tmp_path / "saved", tmp_path / "saved.txt"
    rng, begin, drafts = random.Random(0), 0, 0
    for _ in range(20):
        lines = ledger.read_text().count("\n") if ledger.exists() else 0
        ranks = Ranks(save_forever, world_size=1, folder=folder, begin=begin)
        try:
            deadline = time.monotonic() + 60
            while not (ledger.exists() and ledger.read_text().count("\n") > lines) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.1))
            assert ranks.running
        finally:
            ranks.kill()
        finished = int(ledger.read_text().split()[-1])
        drafts += len(list(folder.glob(".*.draft")))
        number, skipped = newest_number(folder)
        assert skipped == []
        assert finished <= number <= finished + 1
        begin = number + 1
    assert drafts > 5  # control: most kills hit a save

"""Two ranks and the callback: what one of them alone sees must not lead them apart."""

from __future__ import annotations

import pytest
import torch

from tests.training.checkpoints.two_ranks import train
from tests.training.conftest import DATA, MODEL
from tests.training.ranks import Ranks
from theworld.training.events import read_events

pytestmark = pytest.mark.slow


@pytest.fixture
def run(base, osd, tmp_path):
    def both(sees: str, steps: int) -> list[dict]:
        data = {"base": base} | DATA | {name: path for name, path in osd.items() if name.startswith("train")}
        settings = {"data": data, "model": {"base": base} | MODEL, "sees": sees, "steps": steps}
        Ranks(train, world_size=2, folder=tmp_path, **settings).wait(60)
        return [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2)]

    return both


def test_a_bad_first_step_is_skipped_by_all_when_memory_is_reserved(run, tmp_path):
    """If one rank alone asked what a checkpoint would hold, the guard would wait for the other, which trains on."""
    first, second = run("a bad step", 3)
    assert (first["stopped"], second["stopped"]) == ("", "")
    assert first["step"] == second["step"] == 3
    (event,) = read_events(tmp_path, "nonfinite")
    assert event["step"] == 0
    assert all(torch.equal(first["weights"][name], weight) for name, weight in second["weights"].items())
    assert all(weight.isfinite().all() for weight in first["weights"].values())


def test_ranks_that_begin_from_different_checkpoints_are_refused(run):
    run("the same", 2)
    for record in run("less", 3):
        assert "step=2.ckpt as the checkpoint that rank 0 begins from" in record["stopped"]
        assert "{1: '" in record["stopped"]
        assert "step=1.ckpt'} for others, expected one" in record["stopped"]
    first, second = run("the same", 3)  # control
    assert (first["stopped"], first["step"], second["step"]) == ("", 3, 3)


def test_ranks_end_together_where_the_first_cannot_write(run, tmp_path):
    """It alone takes the folder; the other one would wait for it until the timeout of a collective."""
    (tmp_path / "saved").write_text("a file")
    for record in run("the same", 2):
        assert "expected a folder that can be written to" in record["stopped"]

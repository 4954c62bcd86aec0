"""Interrupted runs, through Lightning: other numbers of processes and workers, and kills, change no row nor order."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from tests.tiny import osd_row, write_osd
from tests.training.conftest import DATA, MODEL
from tests.training.ranks import Ranks
from tests.training.recorded_run import train

MICRO_BATCHES, STEPS = 4, 10
"""Rows of a step; steps of a run: two and a half epochs of four."""


class Run:
    """What the ranks of one folder consumed, as far as it counts: what a resumed run did again replaces the first try.

    Attributes:
        rows: (step, place in the step) → ids of the row.
        losses: Loss by step.
        epochs: Epoch by step.
        validations: Steps after which the whole validation began.
        ends: Steps at which a run said that it was done.
    """

    def __init__(self, folder: Path):
        self.rows: dict[tuple[int, int], tuple[str, ...]] = {}
        self.losses: dict[int, float] = {}
        self.epochs: dict[int, int] = {}
        self.validations: set[int] = set()
        self.ends: list[int] = []
        for path in sorted(folder.glob("ledger-*.jsonl")):
            for line in path.read_text().splitlines():
                self._read(json.loads(line))

    def _read(self, entry: dict[str, object]) -> None:
        step = entry["step"]
        if entry["kind"] == "row":
            self.rows[step, entry["place"]] = tuple(entry["ids"])
            self.epochs[step] = entry["epoch"]
        elif entry["kind"] == "step":
            self.losses[step] = entry["loss"]
        elif entry["kind"] == "validation":
            self.validations.add(step)
        elif entry["kind"] == "end":
            self.ends.append(step)

    @property
    def ledger(self) -> list[tuple[str, ...]]:
        """Rows in the order in which they count: step by step, place by place."""
        return [self.rows[key] for key in sorted(self.rows)]

    def after(self, step: int) -> list[tuple[str, ...]]:
        """The ledger from optimizer step `step` on."""
        return [self.rows[key] for key in sorted(self.rows) if key[0] >= step]


@pytest.fixture(scope="module")
def arguments(base, tmp_path_factory) -> dict[str, object]:
    """26 rows, four steps of four packed rows an epoch; validated every second step."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [osd_row(i, turns=1 + i % 2, answer=("Yes", "No")[i % 2] + "." * (1 + i % 3)) for i in range(26)]
    path, images = write_osd(folder, rows)
    val, val_images = write_osd(tmp_path_factory.mktemp("val"), rows[:5])
    files = {"train_path": path, "train_images": images, "val_path": val, "val_images": val_images}
    data = {"base": base} | DATA | {name: str(where) for name, where in files.items()}
    return {"data": data, "model": {"base": base} | MODEL, "micro_batches_per_step": MICRO_BATCHES, "steps": STEPS}


def _every_two_steps(world_size: int) -> dict[str, object]:
    """Lightning counts a rank's micro-batches."""
    return {"check_val_every_n_epoch": None, "val_check_interval": 2 * MICRO_BATCHES // world_size}


def _run(folder: Path, arguments: dict[str, object], *, world_size: int, num_workers: int, **changes: object) -> Run:
    folder.mkdir(exist_ok=True)
    settings = arguments | {"trainer": _every_two_steps(world_size)} | changes
    Ranks(train, world_size=world_size, folder=folder, num_workers=num_workers, **settings).wait()
    return Run(folder)


@pytest.fixture(scope="module")
def uninterrupted(arguments, tmp_path_factory) -> tuple[Run, Path]:
    """Two processes with two workers each, from beginning to end."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return _run(folder, arguments, world_size=2, num_workers=2), folder


@pytest.mark.slow
def test_the_uninterrupted_run_is_what_it_should_be(uninterrupted):
    run, _ = uninterrupted
    assert len(run.ledger) == STEPS * MICRO_BATCHES
    for epoch in (0, 1):
        rows = run.ledger[epoch * 16 : (epoch + 1) * 16]
        assert sorted(name for ids in rows for name in ids) == sorted(f"row-{i}" for i in range(26))
    assert run.validations == {2, 4, 6, 8, 10}
    assert run.ends == [STEPS, STEPS]  # on both ranks


@pytest.mark.slow
@pytest.mark.parametrize("saved_at", range(1, STEPS))
def test_from_two_processes_with_two_workers_to_one_with_three(uninterrupted, arguments, tmp_path, saved_at):
    """At every step: the order of rows, epochs, the end, and validation in optimizer steps are the uninterrupted run's.

    The interval of validation is left as it was set for two processes, and follows.
    """
    whole, folder = uninterrupted
    resumed = _run(
        tmp_path / "resumed",
        arguments,
        world_size=1,
        num_workers=3,
        ckpt_path=str(folder / "saved" / f"step={saved_at}.ckpt"),
        trainer=_every_two_steps(2),
    )
    assert resumed.ledger == whole.after(saved_at)
    assert resumed.epochs == {step: epoch for step, epoch in whole.epochs.items() if step >= saved_at}
    assert resumed.ends == [STEPS]
    assert resumed.validations == {step for step in whole.validations if step > saved_at}
    for step, loss in resumed.losses.items():
        assert loss == pytest.approx(whole.losses[step], rel=1e-5)
    ours, theirs = (torch.load(path / f"weights-{STEPS}.pt") for path in (tmp_path / "resumed", folder))
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "num_workers"), [(2, 0), (4, 1)])
def test_from_one_process_to_more(uninterrupted, arguments, tmp_path, world_size, num_workers):
    whole, _ = uninterrupted
    _run(tmp_path, arguments | {"steps": 6}, world_size=1, num_workers=0)
    resumed = _run(
        tmp_path / "resumed",
        arguments,
        world_size=world_size,
        num_workers=num_workers,
        ckpt_path=str(tmp_path / "saved" / "step=5.ckpt"),
    )
    assert resumed.ledger == whole.after(5)
    assert set(resumed.ends) == {STEPS}
    assert resumed.validations == {6, 8, 10}


SAVERS = {
    "at the end of an epoch": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
    "after a validation": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("saved", SAVERS)
def test_from_checkpoints_of_other_kinds(uninterrupted, arguments, tmp_path, saved):
    """There Lightning has counted the last micro-batch as completed already."""
    whole, _ = uninterrupted
    _run(tmp_path, arguments, world_size=2, num_workers=0, saver=SAVERS[saved])
    checkpoints = sorted((tmp_path / "saved").glob("*.ckpt"))
    assert len(checkpoints) >= 2
    for checkpoint in checkpoints:
        step = int(checkpoint.stem.split("=")[1])
        if step == STEPS:
            continue
        settings = {"ckpt_path": str(checkpoint), "trainer": _every_two_steps(2)}
        resumed = _run(tmp_path / checkpoint.stem, arguments, world_size=1, num_workers=0, **settings)
        assert resumed.ledger == whole.after(step)
        assert resumed.epochs == {at: epoch for at, epoch in whole.epochs.items() if at >= step}
        assert resumed.ends == [STEPS]
        assert resumed.validations == {at for at in whole.validations if at > step}


@pytest.mark.slow
def test_one_run_on_two_one_four_and_two_processes(uninterrupted, arguments, tmp_path):
    """Handed on again and again, with the validation interval as it was set for the first two."""
    whole, _ = uninterrupted
    for world_size, until in ((2, 3), (1, 6), (4, 8), (2, STEPS)):
        settings = {"trainer": _every_two_steps(2) | {"max_steps": until}, "ckpt_path": _newest(tmp_path / "saved")}
        run = _run(tmp_path, arguments, world_size=world_size, num_workers=1, **settings)
    assert run.ledger == whole.ledger
    assert run.epochs == whole.epochs
    assert run.validations == whole.validations
    for step, loss in run.losses.items():
        assert loss == pytest.approx(whole.losses[step], rel=1e-4)


@pytest.mark.slow
def test_without_rescaling_steps_would_be_mixed_up(uninterrupted, arguments, tmp_path):
    """Positive control: with Lightning's own counters the accumulation is out of step with the plan."""
    _, folder = uninterrupted
    checkpoint = torch.load(folder / "saved" / "step=3.ckpt", weights_only=True)
    checkpoint["progress_unit"] |= {"counters": MICRO_BATCHES}  # claims that nothing changes
    torch.save(checkpoint, tmp_path / "untold.ckpt")
    resumed = _run(tmp_path, arguments, world_size=1, num_workers=0, ckpt_path=str(tmp_path / "untold.ckpt"))
    first = [place for step, place in resumed.rows if step == 3]
    assert len(first) != MICRO_BATCHES


@pytest.mark.slow
def test_five_kills(uninterrupted, arguments, tmp_path):
    """SIGKILL to all ranks in the middle of things, five times over; then everything is as if nothing had happened."""
    whole, folder = uninterrupted
    rng = random.Random(0)
    settings = arguments | {"trainer": _every_two_steps(2)}
    for kill in range(5):
        ranks = Ranks(
            train, world_size=2, folder=tmp_path, num_workers=1, ckpt_path=_newest(tmp_path / "saved"), **settings
        )
        try:
            _wait_for_step(tmp_path, 1 + kill + kill // 2, ranks)
            time.sleep(rng.uniform(0, 0.3))
            assert ranks.running, "the run was over before it could be killed"
        finally:
            ranks.kill()
    assert max(Run(tmp_path).losses) < STEPS  # control: it was not done
    Ranks(train, world_size=2, folder=tmp_path, num_workers=1, ckpt_path=_newest(tmp_path / "saved"), **settings).wait()
    run = Run(tmp_path)
    assert run.ledger == whole.ledger
    assert run.losses == whole.losses
    ours, theirs = (torch.load(path / f"weights-{STEPS}.pt") for path in (tmp_path, folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _wait_for_step(folder: Path, step: int, ranks: Ranks) -> None:
    """Until rank 0 has written that so many steps are done."""
    path = folder / "ledger-0.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and ranks.running:
        lines = _whole_lines(path.read_text()) if path.exists() else []
        if any(entry["kind"] == "step" and entry["step"] >= step for entry in map(json.loads, lines)):
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached")


def _whole_lines(text: str) -> Iterable[str]:
    return text[: text.rfind("\n") + 1].splitlines()


def _newest(folder: Path) -> str | None:
    """The checkpoint of the last step; Lightning renames it into place when it is complete."""
    saved = sorted(folder.glob("step=*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    return str(saved[-1]) if saved else None

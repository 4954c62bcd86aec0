"""Loss and gradient of an optimizer step on 1, 2 and 4 ranks over gloo, through Lightning, in double precision."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
import torch

from tests.tiny import osd_row, write_osd
from tests.training.conftest import DATA, MODEL
from tests.training.double_step import train_one_step
from tests.training.ranks import Ranks

ROWS = 12
LAYOUTS = {1: 2000, 4: 512, 8: 256}
"""Packed rows of the step → tokens of a row; always the same twelve samples."""


class Step(NamedTuple):
    """What each rank recorded, and the lines of the quarantine file."""

    ranks: list[dict[str, object]]
    quarantine: list[dict[str, object]]


@pytest.fixture
def step(base, tmp_path):
    """Run one step."""
    rows = [osd_row(i, turns=1 + i % 2, answer="Yes" + "." * (1 + i % 4)) for i in range(ROWS)]
    path, images = write_osd(tmp_path, rows)
    data = {"base": base} | DATA | {"train_path": str(path), "train_images": str(images)}

    def run(world_size: int, micro_batches: int, *, damaged: str | None = None) -> Step:
        write_osd(tmp_path, rows)
        folder = tmp_path / f"{world_size}-{micro_batches}-{damaged}"
        folder.mkdir()
        Ranks(
            train_one_step,
            world_size=world_size,
            folder=folder,
            data=data | {"token_budget": LAYOUTS[micro_batches]},
            model={"base": base} | MODEL,
            micro_batches_per_step=micro_batches,
            damaged=None if damaged is None else str(images / damaged),
        ).wait()
        lines = (folder / "quarantine.jsonl").read_text().splitlines() if damaged is not None else []
        recorded = [torch.load(folder / f"rank-{rank}.pt") for rank in range(world_size)]
        return Step(recorded, [json.loads(line) for line in lines])

    return run


def _assert_same(step: Step, expected: Step) -> None:
    """On every rank."""
    for record in step.ranks:
        _assert_same_record(record, expected.ranks[0])


def _assert_same_record(found: dict[str, object], expected: dict[str, object]) -> None:
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-12)
    assert found["logged"] == pytest.approx(float(expected["loss"]), rel=1e-6)  # Lightning logs float32
    assert found["gradients"].keys() == expected["gradients"].keys()
    largest = max(float(gradient.abs().max()) for gradient in expected["gradients"].values())
    for name, gradient in found["gradients"].items():
        expected_one = expected["gradients"][name]
        torch.testing.assert_close(gradient, expected_one, rtol=1e-12, atol=1e-12 * largest, msg=name)


@pytest.mark.slow
def test_world_size_and_layout_change_neither_loss_nor_gradient(step):
    expected = step(1, 1)
    assert float(expected.ranks[0]["loss"]) > 1
    for world_size, micro_batches in ((1, 8), (2, 8), (4, 8), (2, 4), (4, 4)):
        _assert_same(step(world_size, micro_batches), expected)


@pytest.mark.slow
def test_a_failure_on_one_rank_corrects_the_step_of_all(step):
    """The denominator loses the sample's targets on every rank, also on those that read without failure."""
    whole, expected = step(1, 1), step(1, 1, damaged="img5.png")
    with pytest.raises(AssertionError):  # control: the sample matters
        _assert_same(whole, expected)
    for world_size, micro_batches in ((1, 4), (2, 4), (4, 4)):
        found = step(world_size, micro_batches, damaged="img5.png")
        _assert_same(found, expected)
        (line,) = found.quarantine
        assert (line["step"], line["epoch"], line["id"], line["targets"]) == (0, 0, "row-5", 2 * len("Yes..") + 2)
        assert "img5.png" in line["reason"]

"""A batch moves as a whole, and waits for a copy only where it must."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor

from theworld.types import Batch, PromptBatch

OTHERS = ("step_target_tokens", "ids", "failed")
TENSORS = [field.name for field in fields(Batch) if field.name not in OTHERS]


@pytest.fixture
def batch() -> Batch:
    return Batch(**{name: torch.zeros(1, 2) for name in TENSORS}, step_target_tokens=7, ids=("a", "b"))


def test_every_tensor_moves_and_the_rest_stays(batch):
    moved = batch.to("meta")
    assert {name: getattr(moved, name).device.type for name in TENSORS} == dict.fromkeys(TENSORS, "meta")
    assert (moved.step_target_tokens, moved.ids) == (7, ("a", "b"))
    assert batch.input_ids.device.type == "cpu"
    assert replace(batch, target_weights=None).to("meta").target_weights is None
    prompts = PromptBatch(batch=batch, questions=()).to("meta")
    assert prompts.batch.labels.device.type == "meta"


@pytest.mark.parametrize(
    ("device", "options", "asynchronous"),
    [("meta", {}, True), ("meta", {"non_blocking": False}, False), ("cpu", {}, False), ("cpu:0", {}, False)],
)
def test_only_a_copy_to_the_cpu_waits_by_default(batch, monkeypatch, device, options, asynchronous):
    asked = []
    original = Tensor.to

    def to(self, device, non_blocking=False):
        asked.append(non_blocking)
        return original(self, device)

    monkeypatch.setattr(Tensor, "to", to)
    batch.to(device, **options)
    PromptBatch(batch=batch, questions=()).to(device, **options)
    assert asked == [asynchronous] * 2 * len(TENSORS)


def test_lightning_moves_it_without_help(batch):
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, Batch)
    assert moved.target_positions.device.type == "meta"

"""Which addresses belong to weights, gradients, the optimizer and the batch."""

from __future__ import annotations

import torch
from torch.testing._internal.two_tensor import TwoTensor

from tests.tiny import make_model
from theworld.models.parameter_groups import parameter_groups
from theworld.profiling.memory.owners import owners, storages, tensors_in
from theworld.training.optimizer_rules import set_trainable

CPU = torch.device("cpu")


def total(found, category: str, part: str) -> int:
    return sum(owner.size for owner in found.values() if (owner.category, owner.part) == (category, part))


def test_every_tensor_of_a_step_has_its_owner():
    model = make_model()
    set_trainable(model, {"world_projector"})
    projector = list(model.cosmos_encoder.projector.parameters())
    optimizer = torch.optim.AdamW(projector)
    before = owners(model, optimizer, None, CPU)
    for parameter in projector:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    batch = {"ids": [torch.empty(3, dtype=torch.int64)], "nothing": None}
    found = owners(model, optimizer, batch, CPU)
    for group, members in parameter_groups(model).items():
        assert total(found, "weights", group) == sum(4 * p.numel() for _, p in members)  # a tied weight once
    count = sum(parameter.numel() for parameter in projector)
    assert total(found, "gradients", "world_projector") == 4 * count
    assert total(found, "optimizer_state", "world_projector") == 8 * count + 4 * len(projector)
    assert total(found, "inputs", "batch") == 24
    assert total(before, "gradients", "world_projector") == total(before, "inputs", "batch") == 0


def test_a_subclass_is_the_tensors_that_it_is_made_of():
    """As the moments of 8 bits are, whose own address is none."""
    first, second = torch.empty(4), torch.empty(4)
    expected = {(first.data_ptr(), 16), (second.data_ptr(), 16)}
    assert set(storages(TwoTensor(first, second), CPU)) == expected
    assert not list(storages(torch.empty(4), torch.device("cuda")))
    assert not list(storages(torch.empty(0), CPU))
    view = torch.empty(10)[4:]
    assert list(storages(view, CPU)) == [(view.untyped_storage().data_ptr(), 40)]


def test_tensors_are_found_in_whatever_holds_them():
    one, two = torch.zeros(1), torch.zeros(2)
    assert list(tensors_in({"a": [one, (two, "text")], "b": None})) == [one, two]

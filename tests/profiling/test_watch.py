"""A loop without Lightning under observation; its peak against a count of tensors' storages that shares no code."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.profiling.test_places import make_batch
from tests.tiny import inputs, make_model
from theworld.profiling.memory.breakdown import breakdown, of_category, timeline
from theworld.profiling.memory.owners import tensors_in
from theworld.profiling.places import GLUE, HEAD, Place
from theworld.profiling.watch import Plan, Watch
from theworld.training.optimizer_rules import set_trainable


class StorageCount(TorchDispatchMode):
    """Most bytes of the storages that operations have returned and that are still there.

    Args:
        before: Tensors whose storages were there before.
    """

    def __init__(self, before: list[torch.Tensor]) -> None:
        super().__init__()
        self.before = {tensor.untyped_storage()._cdata for tensor in before}
        self.living: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.numel() != 401:  # the marks
                storage = tensor.untyped_storage()
                if storage._cdata not in self.living and storage._cdata not in self.before:
                    self.living[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.living.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.living.values()))
        return result


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory):
    """The measured step of a model that trains its projector and language model: history, count, model."""
    model = make_model().train()
    set_trainable(model, ["world_projector", "language"])
    batch = make_batch(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    plan = Plan(warmup_steps=1, active_steps=1, traced_steps=1)
    watch = Watch(model, model.device, plan, tmp_path_factory.mktemp("watched"))

    def step() -> None:
        with watch.places.within(Place("forward", GLUE)):
            loss = model(**inputs(batch, labels=True)).loss_sum
        with watch.places.within(Place("backward", HEAD)):
            loss.backward()
        watch.look(optimizer)
        with watch.places.within(Place("optimizer", "step")):
            optimizer.step()
            optimizer.zero_grad()

    for _ in range(plan.total):
        watch.begin_step(optimizer, batch)
        if watch.kind == "measured":
            before = [*model.parameters(), *model.buffers(), *tensors_in(batch)]
            with StorageCount([*before, *tensors_in(list(optimizer.state.values()))]) as count:
                step()
        else:
            step()
    found = watch.finish()
    return found, count, model


def test_the_peak_is_that_of_an_independent_count(watched):
    """Plus weights, moments and the batch, which no operation of the step returned."""
    found, count, _ = watched
    rows = breakdown(found.history, found.recorded.allocated_peak)
    sizes = of_category(rows)
    before = sum(sizes[name] for name in ("weights", "optimizer_state", "inputs"))
    assert sum(row.size for row in rows) == found.recorded.allocated_peak
    assert found.recorded.allocated_peak - before == count.peak
    assert "rounding" not in sizes


def test_gradients_that_the_step_makes_are_known(watched):
    """They are gone when it ends, so only a look between backward pass and optimizer can tell."""
    found, _, model = watched
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    gradients = timeline(found.history).sizes["gradients"]
    assert max(gradients) == trained
    assert gradients[-1] == 0


def test_each_kind_of_step_gave_what_it_is_for(watched):
    found, _, _ = watched
    assert (len(found.plain), len(found.placed)) == (1, 1)
    assert not found.plain[0].places
    assert {place.phase for place in found.placed[0].places} == {"loop", "forward", "backward", "optimizer"}
    assert any(operation.name == "aten::mm" for operation in found.operations)
    assert found.work == {}
    assert found.plain_peaks is None

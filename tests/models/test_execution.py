"""Compiled and recomputed layers give what plain ones give; evaluation mode runs layers as they are written."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.conftest import make_sample, packed
from tests.models.triton_code import first_code
from tests.tiny import gemma_config, inputs, make_model
from theworld.models import execution
from theworld.models.execution import set_execution
from theworld.models.theworld import TheWorld


def loss_and_gradients(model: TheWorld) -> tuple[Tensor, dict[str, Tensor]]:
    samples = [make_sample(name, text=5 + i, answer=4, seed=i) for i, name in enumerate("ab")]
    model.zero_grad(set_to_none=True)
    loss = model(**inputs(packed(samples, 96), labels=True)).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def saved_bytes(model: TheWorld) -> int:
    """Bytes that one forward pass keeps for the backward pass."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    samples = [make_sample("a", text=5, answer=4, seed=0)]
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model(**inputs(packed(samples, 96), labels=True)).loss_sum.sum()
    return kept


def test_recompute_keeps_less_and_changes_nothing():
    model = make_model().train()
    kept, results = [], []
    for recompute in ("none", "selective", "full", "none"):
        set_execution(model, compiled=False, recompute=recompute)
        kept.append(saved_bytes(model))
        results.append(loss_and_gradients(model))
    assert kept[0] > kept[1] > kept[2]
    assert kept[3] == kept[0]
    for loss, gradients in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert gradients.keys() == results[0][1].keys()
        assert all(torch.equal(gradient, results[0][1][name]) for name, gradient in gradients.items())


def test_names_of_parameters_stay():
    model = make_model().train()
    before = list(model.state_dict())
    set_execution(model, compiled=True, recompute="full")
    assert list(model.state_dict()) == before


def test_evaluation_mode_is_never_compiled(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a compiled layer ran")

    monkeypatch.setattr(torch, "compile", lambda function, **_options: refuse)
    model = make_model()
    set_execution(model, compiled=True, recompute="none")
    batch = inputs(packed([make_sample("a", text=5, answer=4, seed=0)], 96))
    model.eval()(**batch)
    with pytest.raises(AssertionError, match="a compiled layer ran"):
        model.train()(**batch)


def test_unknown_recompute_is_refused():
    with pytest.raises(ValueError, match="found recompute='some', expected one of"):
        set_execution(make_model(), compiled=False, recompute="some")


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_compiled_equals_plain(recompute):
    model = make_model().train()
    loss, gradients = loss_and_gradients(model)
    set_execution(model, compiled=True, recompute=recompute)
    compiled_loss, compiled_gradients = loss_and_gradients(model)
    torch.testing.assert_close(compiled_loss, loss, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled_gradients[name], gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("untouched_compiler")
@pytest.mark.parametrize("padded", [False, True])
def test_no_row_of_siglips_mlp_is_padded(monkeypatch, padded: bool):
    """With PyTorch's own choice, a control, 1,040 numbers become 1,056, as SigLIP's 4,304 do 4,352 on a GPU."""
    if padded:
        monkeypatch.setattr(execution, "_COMPILER", {})
    config = gemma_config()
    config.vision_config.intermediate_size = 1040
    model = make_model(gemma_config=config).train()
    set_execution(model, compiled=True, recompute="none")
    code = first_code(monkeypatch, lambda: loss_and_gradients(model))
    assert "1040" in code
    assert ("1056" in code) == padded

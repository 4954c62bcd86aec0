"""Matrices of the frozen language model in 8 bits: how far they are off, what they keep, and that gradients pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tests.models.conftest import make_sample, packed
from tests.tiny import inputs, make_model
from theworld.models.execution import set_execution
from theworld.models.low_bit import (
    PROJECTIONS,
    FrozenInt8Linear,
    check_low_bit_base,
    dequantised,
    quantise_language,
    state_on_true_base,
)
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld


def linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    made = nn.Linear(40, 24, bias=False, dtype=dtype)
    with torch.no_grad():
        made.weight[3] = 0.0
        made.weight[4] *= 1000.0  # rows have scales of their own
    return made


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_weight_is_within_half_a_step_of_its_row(dtype):
    plain = linear(dtype)
    low = FrozenInt8Linear(plain)
    assert low.int8_weight.dtype == torch.int8
    assert low.scale.dtype == dtype
    assert low.int8_weight.abs().max() == 127
    exact = dequantised(low.int8_weight.double(), low.scale.double(), torch.float64)
    errors = (exact - plain.weight.double()).abs()
    half = low.scale.double()[:, None] / 2
    assert (errors <= half * (1 + 1e-6)).all()
    assert errors.max() > 0.4 * half[4]  # control: the bound is not far away
    assert (exact[3] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_output_and_gradient_are_those_of_the_dequantised_matrix(dtype):
    plain = linear(dtype)
    low = FrozenInt8Linear(plain)
    given = torch.randn(2, 5, 40, dtype=dtype, requires_grad=True)
    weight = dequantised(low.int8_weight, low.scale, dtype)
    output, expected = low(given), F.linear(given, weight)
    assert torch.equal(output, expected)
    toward = torch.randn_like(output)
    (ours,) = torch.autograd.grad(output, given, toward)
    (theirs,) = torch.autograd.grad(expected, given, toward)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    (unrounded,) = torch.autograd.grad(plain(given), given, toward)
    assert not torch.allclose(ours, unrounded, rtol=1e-6, atol=1e-6)  # control
    assert torch.autograd.gradcheck(FrozenInt8Linear(linear(torch.float64)), given.double().detach().requires_grad_())


def test_under_autocast_it_multiplies_in_bfloat16_as_a_linear_layer_does():
    low, given = FrozenInt8Linear(linear()), torch.randn(3, 40)
    with torch.autocast("cpu", torch.bfloat16):
        output = low(given)
    assert output.dtype == torch.bfloat16
    expected = F.linear(given.bfloat16(), dequantised(low.int8_weight, low.scale, torch.bfloat16))
    assert torch.equal(output, expected)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.autocast("cpu", torch.bfloat16):
        assert low(given).dtype == torch.bfloat16  # what a compiler is told


def test_a_bias_is_refused():
    with pytest.raises(ValueError, match="found a linear layer with a bias, expected none"):
        FrozenInt8Linear(nn.Linear(2, 2))


def kept(function: nn.Module, given: Tensor) -> list[tuple[torch.dtype, int]]:
    """Type and number of elements of what a forward pass keeps."""
    found: list[tuple[torch.dtype, int]] = []

    def note(tensor: Tensor) -> Tensor:
        found.append((tensor.dtype, tensor.numel()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, torch.Tensor.clone):
        function(given)
    return found


def test_only_int8_and_scale_are_kept_compiled_or_not():
    """The compiler's own partition too: it keeps no 16-bit copy between the passes."""
    low = FrozenInt8Linear(linear(torch.bfloat16))
    given = torch.randn(5, 40, dtype=torch.bfloat16, requires_grad=True)
    assert sorted(kept(low, given), key=str) == [(torch.bfloat16, 24), (torch.int8, 24 * 40)]
    compiled = torch.compile(low, backend="aot_eager_decomp_partition", fullgraph=True, dynamic=False)
    assert sorted(kept(compiled, given), key=str) == [(torch.bfloat16, 24), (torch.int8, 24 * 40)]

    def seen_into(inputs: Tensor) -> Tensor:  # control: the same without an operator of its own
        return F.linear(inputs, dequantised(low.int8_weight, low.scale, inputs.dtype))

    control = torch.compile(seen_into, backend="aot_eager_decomp_partition", fullgraph=True, dynamic=False)
    assert (torch.bfloat16, 24 * 40) in kept(control, given)


def quantised(**changes: object) -> TheWorld:
    model = make_model(**changes).train()
    model.requires_grad_(False)
    model.cosmos_encoder.projector.requires_grad_(True)
    quantise_language(model)
    return model


def loss_and_gradients(model: TheWorld) -> tuple[Tensor, list[Tensor]]:
    samples = [make_sample(name, text=5 + i, answer=4, seed=i) for i, name in enumerate("ab")]
    loss = model(**inputs(packed(samples, 96), labels=True)).loss
    return loss.detach(), list(torch.autograd.grad(loss, list(model.cosmos_encoder.projector.parameters())))


def test_the_model_loses_a_little_and_its_projector_learns_the_same():
    """Random weights, worse than trained ones: the loss within 2 %, the projector's gradient within 5 degrees or so."""
    whole = make_model().train()
    model = quantised()
    (loss, gradients), (expected, theirs) = loss_and_gradients(model), loss_and_gradients(whole)
    assert loss != expected
    assert abs(loss - expected) < 0.02 * expected
    ours, reference = (torch.cat([g.flatten() for g in all_of]) for all_of in (gradients, theirs))
    assert F.cosine_similarity(ours, reference, dim=0) > 0.996


def test_bytes_and_counts_of_the_model():
    whole, model = make_model(), quantised()
    config = model.config.get_text_config()
    matrices = [m for m in model.modules() if isinstance(m, FrozenInt8Linear)]
    assert len(matrices) == len(PROJECTIONS) * config.num_hidden_layers
    elements, rows = (sum(getattr(m, name).numel() for m in matrices) for name in ("int8_weight", "scale"))
    before, after = (sum(p.numel() * p.element_size() for p in m.parameters()) for m in (whole, model))
    assert before - after == 4 * elements - elements - 4 * rows
    assert elements > rows
    counts = {group: sum(p.numel() for _, p in named) for group, named in parameter_groups(model).items()}
    assert counts == whole.parameter_counts() | {"language": whole.parameter_counts()["language"] + rows}


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_recompute_and_compilation_change_nothing(recompute, monkeypatch):
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: plain(f, backend="aot_eager", **options))
    model = quantised()
    loss, gradients = loss_and_gradients(model)
    for compiled in (False, recompute == "full"):
        set_execution(model, compiled=compiled, recompute=recompute)
        again, others = loss_and_gradients(model)
        torch.testing.assert_close(again, loss, rtol=1e-6, atol=1e-6)
        for ours, theirs in zip(gradients, others, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_checkpointed_gradients_are_the_same():
    low, given = FrozenInt8Linear(linear()), torch.randn(5, 40, requires_grad=True)
    (plain,) = torch.autograd.grad(low(given).square().sum(), given)
    (again,) = torch.autograd.grad(checkpoint(low, given, use_reentrant=False).square().sum(), given)
    assert torch.equal(plain, again)


def test_its_operations_are_counted():
    low, given = FrozenInt8Linear(linear()), torch.randn(2, 5, 40, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        low(given).sum().backward()
    assert counter.get_total_flops() == 2 * (2 * 10 * 24 * 40)


def test_a_language_model_that_trains_is_refused():
    check_low_bit_base(["world_projector", "vision"])
    with pytest.raises(ValueError, match="found low_bit_base=True with the language model among what the stages train"):
        check_low_bit_base(["world_projector", "language"])


def test_the_state_on_the_true_base_has_its_matrices():
    base, model = make_model(), quantised()
    with torch.no_grad():
        for parameter in model.cosmos_encoder.projector.parameters():
            parameter += 1.0
    state, true = state_on_true_base(model, base), base.state_dict()
    assert state.keys() == true.keys()
    different = {name for name in state if not torch.equal(state[name], true[name])}
    assert different == {n for n, _ in model.named_parameters() if n.startswith("cosmos_encoder.projector.")}


def test_a_rounded_model_that_is_saved_as_it_is_cannot_be_loaded_as_another(tmp_path):
    """Its parameters have names of their own, so its matrices are missing, not filled with the int8 numbers."""
    quantised().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="missing keys .*q_proj"):
        TheWorld.from_pretrained(tmp_path)

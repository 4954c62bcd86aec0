"""The target-only loss against torch's cross-entropy over whole rows."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from theworld.models.losses import find_target_positions, target_cross_entropy
from theworld.types import IGNORE_INDEX


def test_equal_to_full_cross_entropy():
    torch.manual_seed(0)
    hidden = torch.randn(2, 7, 8, requires_grad=True)
    weight = torch.randn(11, 8)
    labels = torch.full((2, 7), IGNORE_INDEX)
    labels[0, 3:6], labels[1, 6] = torch.tensor([1, 2, 3]), 10
    positions = find_target_positions(labels)
    assert positions.tolist() == [2, 3, 4, 12]
    loss = target_cross_entropy(hidden, weight, labels, positions)
    logits = F.linear(hidden, weight)[:, :-1].flatten(0, 1)
    expected = F.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-6)
    (ours,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, hidden)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    assert ours.abs().sum() > 0


def test_no_target_is_zero_and_differentiable():
    hidden = torch.randn(1, 4, 8, requires_grad=True)
    labels = torch.full((1, 4), IGNORE_INDEX)
    loss = target_cross_entropy(hidden, torch.randn(11, 8), labels, find_target_positions(labels))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == 0.0
    assert torch.equal(hidden.grad, torch.zeros_like(hidden))


def test_bfloat16_sums_in_float32():
    hidden, weight = torch.randn(1, 4, 8).bfloat16(), torch.randn(11, 8).bfloat16()
    labels = torch.tensor([[IGNORE_INDEX, 1, 2, 3]])
    assert target_cross_entropy(hidden, weight, labels, find_target_positions(labels)).dtype == torch.float32


def test_target_at_the_first_token_is_refused():
    with pytest.raises(ValueError, match=r"first token of rows \[1\]"):
        find_target_positions(torch.tensor([[IGNORE_INDEX, 3], [4, 3]]))


def test_weighted_targets():
    torch.manual_seed(0)
    hidden, weight = torch.randn(1, 5, 8, requires_grad=True), torch.randn(11, 8)
    labels = torch.tensor([[IGNORE_INDEX, 1, IGNORE_INDEX, 3, 4]])
    positions, weights = find_target_positions(labels), torch.tensor([1.0, 0.5, 2.0])
    loss = target_cross_entropy(hidden, weight, labels, positions, weights)
    alone = [
        target_cross_entropy(hidden, weight, labels, positions[number : number + 1]) for number in range(len(positions))
    ]
    torch.testing.assert_close(loss, alone[0] + alone[1] / 2 + alone[2] * 2)
    ones = target_cross_entropy(hidden, weight, labels, positions, torch.ones(3))
    torch.testing.assert_close(ones, target_cross_entropy(hidden, weight, labels, positions))
    assert not torch.isclose(loss, ones)
    none = target_cross_entropy(hidden, weight, labels, positions[:0], weights[:0])
    none.backward()
    assert none.item() == 0.0


def test_float64_is_not_rounded():
    hidden, weight = torch.randn(1, 4, 8, dtype=torch.float64), torch.randn(11, 8, dtype=torch.float64)
    labels = torch.tensor([[IGNORE_INDEX, 1, 2, 3]])
    positions = find_target_positions(labels)
    loss = target_cross_entropy(hidden, weight, labels, positions)
    expected = F.cross_entropy(hidden[0, :3] @ weight.T, labels[0, 1:], reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-15, atol=0)

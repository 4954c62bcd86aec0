"""The target-only loss against torch's cross-entropy over whole rows."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from theworld.models.losses import CHUNK_ROWS, find_target_positions, target_cross_entropy
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


VOCABULARY = 4096
CHUNKS = (1, 3, 7, 20, 1000)
WIDTHS = (8, 128)
"""Fewer and more columns than there are targets: the head's gradient is kept, or that of the logits."""


def many_targets(
    count: int, dtype: torch.dtype, width: int = 8
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, head, labels (one of them to be ignored) and weights of `count` targets in two rows."""
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, count // 2 + 3, width, generator=g, dtype=dtype, requires_grad=True)
    head = (torch.randn(VOCABULARY, width, generator=g, dtype=dtype) * (8 / width) ** 0.5).requires_grad_()
    labels = torch.full(hidden.shape[:2], IGNORE_INDEX)
    labels[:, -(count // 2) :] = torch.randint(VOCABULARY, (2, count // 2), generator=g)
    return hidden, head, labels, torch.rand(count, generator=g) + 0.5


def whole_logits(hidden, head, labels, positions, weights=None):
    """The loss with all logits at once and autograd's own gradient."""
    logits = F.linear(hidden.flatten(0, 1)[positions], head)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(logits, labels.flatten()[positions + 1], ignore_index=IGNORE_INDEX, reduction="none")
    return (losses if weights is None else losses * weights).sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk_rows", CHUNKS)
@pytest.mark.parametrize("width", WIDTHS)
def test_chunks_give_the_value_and_gradients_of_whole_logits(width, chunk_rows, weighted):
    """In float64 to the last digits, scaled by a gradient of the loss that is not one, with an ignored label."""
    hidden, head, labels, weights = many_targets(20, torch.float64, width)
    positions = find_target_positions(labels)
    labels[0, -1] = IGNORE_INDEX
    given = weights if weighted else None
    loss = target_cross_entropy(hidden, head, labels, positions, given, chunk_rows=chunk_rows)
    expected = whole_logits(hidden, head, labels, positions, given)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad(loss / 7, (hidden, head), retain_graph=True)
    theirs = torch.autograd.grad(expected / 7, (hidden, head))
    for once, again in zip(ours, torch.autograd.grad(loss / 7, (hidden, head)), strict=True):
        assert torch.equal(once, again)  # what is kept is not written over
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
        assert other.abs().sum() > 0
    wrong = torch.autograd.grad(whole_logits(hidden, head, labels, positions[1:]) / 7, head)[0]
    assert not torch.allclose(ours[1], wrong, rtol=1e-12, atol=1e-12)  # control: a target less shows


@pytest.mark.parametrize("width", WIDTHS)
def test_gradients_only_of_what_trains(width):
    hidden, head, labels, _ = many_targets(20, torch.float32, width)
    positions = find_target_positions(labels)
    for trained, frozen in ((hidden, head.detach()), (head, hidden.detach())):
        arguments = (trained, frozen) if trained is hidden else (frozen, trained)
        (gradient,) = torch.autograd.grad(target_cross_entropy(*arguments, labels, positions, chunk_rows=6), trained)
        (expected,) = torch.autograd.grad(whole_logits(hidden, head, labels, positions), trained)
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        alone = target_cross_entropy(hidden, head, labels, positions, chunk_rows=6)
    torch.testing.assert_close(alone, whole_logits(hidden, head, labels, positions).detach())


@pytest.mark.parametrize("masters", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_under_autocast_products_are_bfloat16_and_the_rest_float32(width, masters):
    """Against whole logits under the same autocast; masters keep their float32 gradients."""
    hidden, head, labels, weights = many_targets(40, torch.float32, width)
    if not masters:
        hidden, head = (t.detach().bfloat16().requires_grad_() for t in (hidden, head))
    positions = find_target_positions(labels)
    with torch.autocast("cpu", torch.bfloat16):
        loss = target_cross_entropy(hidden, head, labels, positions, weights, chunk_rows=16)
        expected = whole_logits(hidden, head, labels, positions, weights)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    exact = torch.autograd.grad(
        whole_logits(hidden.double(), head.double(), labels, positions, weights), (hidden, head)
    )
    ours, theirs = (torch.autograd.grad(value, (hidden, head)) for value in (loss, expected))
    for mine, other, truth in zip(ours, theirs, exact, strict=True):
        assert mine.dtype == other.dtype
        assert (mine - truth).norm() < 1.2 * (other - truth).norm() + 1e-3 * truth.norm()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 65_536.0])
@pytest.mark.parametrize("width", WIDTHS)
def test_float16_survives_a_scaled_loss(width, scale):
    """As `GradScaler` scales it, up to the 65,536 with which it begins; masters are float32."""
    hidden, head, labels, _ = many_targets(20, torch.float32, width)
    positions = find_target_positions(labels)
    with torch.autocast("cpu", torch.float16):
        loss = target_cross_entropy(hidden, head, labels, positions)
    ours = torch.autograd.grad(loss * scale, (hidden, head))
    theirs = torch.autograd.grad(whole_logits(hidden, head, labels, positions) * scale, (hidden, head))
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).norm() < 5e-3 * other.norm()


class Casts(TorchDispatchMode):
    """Counts the casts of tensors of one shape."""

    def __init__(self, shape: torch.Size):
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default and args[0].shape == self.shape
        return func(*args, **(kwargs or {}))


def test_float32_masters_of_the_head_are_cast_once():
    """Not for every product of every chunk, as autocast would."""
    hidden, head, labels, _ = many_targets(40, torch.float32)
    positions = find_target_positions(labels)
    for chunk_rows, expected in ((40, 1), (4, 1)):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False), Casts(head.shape) as casts:
            target_cross_entropy(hidden, head.detach(), labels, positions, chunk_rows=chunk_rows)
        assert casts.count == expected


def test_many_small_chunks_do_not_wear_the_gradient_of_the_head_down():
    """Sixty-four chunks in bfloat16: as close to float64 as one chunk is. A sum in bfloat16 is not (control)."""
    hidden, head, labels, _ = many_targets(64, torch.float32)
    labels[labels != IGNORE_INDEX] = 5  # all targets alike, so that their gradients add up
    positions = find_target_positions(labels)
    low = [t.detach().bfloat16().requires_grad_() for t in (hidden, head)]
    truth = torch.autograd.grad(whole_logits(low[0].double(), low[1].double(), labels, positions), low[1])[0].double()

    def error(gradient: torch.Tensor) -> float:
        return float((gradient.double() - truth)[5].norm() / truth[5].norm())

    whole, chunked = (
        torch.autograd.grad(target_cross_entropy(*low, labels, positions, chunk_rows=rows), low[1])[0]
        for rows in (64, 1)
    )
    summed = torch.zeros_like(low[1])
    for position in positions:
        summed += torch.autograd.grad(target_cross_entropy(*low, labels, position[None]), low[1])[0]
    assert error(chunked) < 2 * error(whole) + 1e-3
    assert error(summed) > 2 * error(chunked)


def kept_bytes(count: int, *, head_trains: bool, loss_of, width: int = 8) -> int:
    """Bytes that the loss of `count` targets keeps for the backward pass."""
    hidden, head, labels, _ = many_targets(count, torch.float32, width)
    positions = find_target_positions(labels)
    kept = 0

    def count_bytes(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count_bytes, torch.Tensor.clone):
        loss_of(hidden, head if head_trains else head.detach(), labels, positions)
    return kept


def test_what_is_kept_does_not_grow_with_the_vocabulary():
    """Per target a gradient of D numbers and indices; for a head that trains its own gradient once."""
    assert CHUNK_ROWS >= 1024
    few, many = (kept_bytes(n, head_trains=False, loss_of=target_cross_entropy) for n in (16, 4096))
    assert many - few <= (4096 - 16) * 64
    trained = kept_bytes(4096, head_trains=True, loss_of=target_cross_entropy)
    assert trained - many == VOCABULARY * 8 * 4
    assert kept_bytes(256, head_trains=False, loss_of=whole_logits) > 256 * VOCABULARY * 4  # control


def test_of_logits_and_head_the_smaller_gradient_is_kept():
    """For 20 targets 20 rows of logits; from as many targets as columns on, the matrix."""
    sizes = {"loss_of": target_cross_entropy, "width": 128}
    for targets, kept in ((20, 20 * VOCABULARY), (128, 128 * VOCABULARY), (130, 128 * VOCABULARY)):
        frozen = kept_bytes(targets, head_trains=False, **sizes)
        rows = targets * (128 + 1) * (targets <= 128)  # hidden states and what each counts, beside the logits'
        assert kept_bytes(targets, head_trains=True, **sizes) - frozen == 4 * (kept + rows)


def test_no_target_gives_the_head_a_gradient_of_zeros():
    hidden, head = torch.randn(1, 4, 8, requires_grad=True), torch.randn(11, 8, requires_grad=True)
    labels = torch.full((1, 4), IGNORE_INDEX)
    target_cross_entropy(hidden, head, labels, find_target_positions(labels)).backward()
    assert torch.equal(head.grad, torch.zeros_like(head))


def test_chunk_of_no_rows_is_refused():
    hidden, head, labels, _ = many_targets(4, torch.float32)
    with pytest.raises(ValueError, match="found chunk_rows=0, expected at least 1"):
        target_cross_entropy(hidden, head, labels, find_target_positions(labels), chunk_rows=0)

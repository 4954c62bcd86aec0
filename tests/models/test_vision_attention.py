"""SigLIP's attention by its own operator while it trains, against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from tests.models.conftest import make_sample
from tests.models.conftest import packed as collated
from tests.tiny import inputs, make_model
from theworld.models.attention.backends import VISION_NAME, vision_attention
from theworld.models.attention.image_op import image_attention
from theworld.models.image_features import image_features

IMAGES, HEADS, PATCHES, SIZE = 3, 2, 7, 8


def states(*, grad: bool = True) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = IMAGES, HEADS, PATCHES, SIZE
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=grad) for _ in range(3)]


def test_outputs_and_gradients_equal_pytorchs() -> None:
    qkv = states()
    expected = scaled_dot_product_attention(*qkv, scale=0.3).transpose(1, 2)
    found, weights = vision_attention(None, *qkv, None, scaling=0.3)
    assert weights is None
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(output, qkv, grad) for output in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_no_image_sees_another() -> None:
    """Control for the one above: with the images' edges elsewhere the numbers are others."""
    flat = [part.transpose(1, 2).flatten(0, 1) for part in states()]
    real, _ = image_attention(*flat, PATCHES, 0.3, "flash4")
    joined, _ = image_attention(*flat, IMAGES * PATCHES, 0.3, "flash4")
    assert not torch.allclose(real, joined)


def test_operator_passes_pytorchs_own_checks() -> None:
    flat = [part.detach().transpose(1, 2).flatten(0, 1).requires_grad_() for part in states()]
    torch.library.opcheck(image_attention, (*flat, PATCHES, 0.3, "flash4"))


def test_products_are_counted() -> None:
    flat = [part.transpose(1, 2).flatten(0, 1) for part in states()]
    with FlopCounterMode(display=False) as counter:
        image_attention(*flat, PATCHES, 0.3, "flash4")[0].sum().backward()
    forward = 4 * IMAGES * HEADS * PATCHES * PATCHES * SIZE
    assert counter.get_total_flops() == forward * 3.5


@pytest.mark.parametrize("trains", [True, False])
def test_only_a_tower_that_trains_uses_it(trains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    model.attention_backend = "flash4"
    tower = model.gemma.model.vision_tower
    assert tower.config._attn_implementation == VISION_NAME
    called = []
    monkeypatch.setattr(
        "theworld.models.attention.backends.image_attention",
        lambda *given: called.append(given) or image_attention(*given),
    )
    for parameter in tower.parameters():
        parameter.requires_grad_(trains)
    batch = collated([make_sample("a", text=20, answer=5, seed=1)], 96)
    image_features(model.gemma, batch.pixel_values)
    assert len(called) == (len(tower.encoder.layers) if trains else 0)
    model.attention_backend = "sdpa"
    assert tower.config._attn_implementation == "sdpa"


def test_loss_and_gradients_of_the_tower() -> None:
    model = make_model()
    batch = collated([make_sample(name, text=20, answer=5, seed=seed) for seed, name in enumerate("ab")], 192)
    tower = [p for p in model.gemma.model.vision_tower.parameters() if p.requires_grad_().requires_grad]
    found = {}
    for backend in ("sdpa", "flash4"):
        model.attention_backend = backend
        loss = model(**inputs(batch, labels=True)).loss
        gradients = torch.autograd.grad(loss, tower, allow_unused=True)
        found[backend] = loss, torch.cat([g.flatten() for g in gradients if g is not None])
    torch.testing.assert_close(found["flash4"][0], found["sdpa"][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found["flash4"][1], found["sdpa"][1], rtol=1e-4, atol=1e-6)
    assert found["sdpa"][1].norm() > 1e-3

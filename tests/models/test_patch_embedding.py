"""Patches multiplied give what the convolution gives, and its gradients, from the same weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import make_model
from theworld.models.patch_embedding import PatchConv2d, multiply_patches, use_patch_products


def with_products(convolution: nn.Conv2d) -> nn.Conv2d:
    module = nn.ModuleList([copy.deepcopy(convolution)])
    use_patch_products(module)
    return module[0]


def results(found: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [found, *torch.autograd.grad(found.square().sum(), inputs)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(12, 12), (4, 9)])
def test_outputs_and_gradients_are_the_convolutions(bias: bool, size: tuple[int, int]):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, kernel_size=(4, 3), stride=(4, 3), padding="valid", bias=bias).double()
    pixels = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    inputs = (pixels, *convolution.parameters())
    expected = results(convolution(pixels), *inputs)
    found = results(multiply_patches(pixels, convolution.weight, convolution.bias), *inputs)
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"stride": 4, "padding": 1}, {"stride": 4, "dilation": 2}, {"stride": 4, "groups": 3}],
)
def test_other_convolutions_stay(options: dict[str, int]):
    assert type(with_products(nn.Conv2d(3, 6, kernel_size=4, stride=4))) is PatchConv2d
    assert type(with_products(nn.Conv2d(3, 6, kernel_size=4, **options))) is nn.Conv2d


def test_siglips_patches_are_multiplied_and_its_weights_keep_their_names():
    model = make_model()
    assert type(model.gemma.model.vision_tower.embeddings.patch_embedding) is PatchConv2d
    assert "gemma.model.vision_tower.embeddings.patch_embedding.weight" in model.state_dict()


@pytest.mark.gpu
def test_on_a_gpu_the_product_is_run(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 16, kernel_size=14, stride=14).cuda()
    pixels = torch.randn(2, 3, 56, 56, device="cuda")
    found = with_products(convolution)(pixels)
    torch.testing.assert_close(found, convolution(pixels), rtol=1e-4, atol=1e-4)
    assert torch.equal(found, multiply_patches(pixels, convolution.weight, convolution.bias))
    uneven = pixels[..., :50]
    assert torch.equal(with_products(convolution)(uneven), convolution(uneven))

"""Patches multiplied give what the convolution gives, and its gradients, from the same weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.tiny import make_model
from theworld.models.patch_embedding import PatchConv2d, multiply_patches


def multiplied(convolution: nn.Conv2d) -> nn.Conv2d:
    module = nn.ModuleList([copy.deepcopy(convolution)])
    multiply_patches(module)
    return module[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(12, 12), (14, 9)])
def test_outputs_and_gradients_are_the_convolutions(bias: bool, size: tuple[int, int]):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, kernel_size=(4, 3), stride=(4, 3), padding="valid", bias=bias).double()
    pixels = torch.randn(2, 3, *size, dtype=torch.float64)
    answers = []
    for module in (convolution, multiplied(convolution)):
        given = pixels.clone().requires_grad_()
        found = module(given)
        found.square().sum().backward()
        answers.append([found, given.grad, *(p.grad for p in module.parameters())])
    assert type(multiplied(convolution)) is PatchConv2d
    for expected, found in zip(*answers, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"stride": 4, "padding": 1}, {"stride": 4, "dilation": 2}, {"stride": 4, "groups": 3}],
)
def test_other_convolutions_stay(options: dict[str, int]):
    assert type(multiplied(nn.Conv2d(3, 6, kernel_size=4, **options))) is nn.Conv2d


def test_the_model_multiplies_siglips_patches_and_its_weights_keep_their_names():
    model = make_model()
    embeddings = model.gemma.model.vision_tower.embeddings
    assert type(embeddings.patch_embedding) is PatchConv2d
    assert "gemma.model.vision_tower.embeddings.patch_embedding.weight" in model.state_dict()
    pixels = torch.randn(1, 3, embeddings.image_size, embeddings.image_size)
    found = embeddings(pixels)
    embeddings.patch_embedding.__class__ = nn.Conv2d
    torch.testing.assert_close(found, embeddings(pixels), rtol=1e-5, atol=1e-6)

"""SigLIP's first convolution as the matrix product that it is: its patches do not overlap.

I images · C channels · D width · R, Q rows and columns of patches
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PatchConv2d(nn.Conv2d):
    """A convolution whose stride is its kernel. cuDNN takes several times as long for one of three channels.

    On a CPU it stays a convolution, whose last bits do not hang on where in memory the weights lie.
    """

    def forward(self, input: Tensor) -> Tensor:
        """float[I, C, h, w] → float[I, D, R, Q]."""
        height, width = self.kernel_size
        whole = input.ndim == 4 and input.shape[2] % height == 0 and input.shape[3] % width == 0
        return multiply_patches(input, self.weight, self.bias) if input.is_cuda and whole else super().forward(input)


def multiply_patches(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.conv2d` of whole patches: float[I, C, R·height, Q·width] by float[D, C, height, width] → float[I, D, R, Q]."""
    height, width = weight.shape[2:]
    patches = pixels.unflatten(3, (-1, width)).unflatten(2, (-1, height))  # (I, C, R, height, Q, width)
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (I, R, Q, C·height·width)
    return F.linear(patches, weight.flatten(1), bias).permute(0, 3, 1, 2)


def use_patch_products(module: nn.Module) -> None:
    """Make every convolution of plain patches a `PatchConv2d`: the same weights under the same names."""
    for part in module.modules():
        if type(part) is nn.Conv2d and part.stride == part.kernel_size and _is_plain(part):
            part.__class__ = PatchConv2d


def _is_plain(convolution: nn.Conv2d) -> bool:
    """No padding, no gaps, one group."""
    return convolution.padding in ("valid", (0, 0)) and convolution.dilation == (1, 1) and convolution.groups == 1

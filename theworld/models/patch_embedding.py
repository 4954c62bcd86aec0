"""SigLIP's first convolution as the matrix product that it is: its patches do not overlap.

I images · C channels · D width · R, Q rows and columns of patches
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PatchConv2d(nn.Conv2d):
    """A convolution whose stride is its kernel. For three channels cuDNN takes five times as long as the product.

    On a CPU it stays a convolution, whose last bits do not hang on where in memory the weights lie.
    """

    def forward(self, input: Tensor) -> Tensor:
        """float[I, C, h, w] → float[I, D, R, Q]; what is left over at the right and below is not looked at."""
        return multiply_patches(input, self.weight, self.bias) if input.is_cuda else super().forward(input)


def multiply_patches(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.conv2d` with the size of `weight`, float[D, C, height, width], as its stride: → float[I, D, R, Q]."""
    height, width = weight.shape[2:]
    rows, columns = pixels.shape[2] // height, pixels.shape[3] // width
    whole = pixels[:, :, : rows * height, : columns * width]
    patches = whole.unflatten(3, (columns, width)).unflatten(2, (rows, height))  # (I, C, R, height, Q, width)
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

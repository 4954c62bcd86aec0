"""What autocast does to the inputs of a matrix product, for the products that autocast does not see."""

from __future__ import annotations

import torch
from torch import Tensor


def product_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which `torch.mm` would multiply `tensor` here: autocast's if it is on, except for float64."""
    device = tensor.device.type
    if tensor.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return tensor.dtype
    return torch.get_autocast_dtype(device)

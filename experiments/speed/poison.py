"""Fills free memory with NaN before each backward pass: who reads what nobody wrote is seen in the gradients.

`scaling/run.py --poison` uses it. Not for timing.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

SIZES = {2**30: 8, 2**28: 16, 2**25: 64, 2**22: 256, 2**20: 256, 2**14: 1024}
"""Bytes of a block, and how many of them are held at a time: the allocator hands out large and small blocks apart."""


def poison(device: torch.device) -> None:
    """Leave NaN in what the allocator keeps for the next tensors of a GPU; a CPU's allocator keeps nothing."""
    if device.type != "cuda":
        return
    held = []
    for size, count in SIZES.items():
        for _ in range(count):
            if torch.cuda.mem_get_info(device)[0] < 4 * size:
                break
            held.append(torch.full((size // 4,), float("nan"), dtype=torch.float32, device=device))


class Poison(Callback):
    """`poison` before every backward pass."""

    def on_before_backward(self, trainer: Trainer, pl_module: Any, loss: torch.Tensor) -> None:
        poison(loss.device)

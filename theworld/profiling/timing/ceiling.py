"""What the device can do: the rate of one large matrix product, measured in the same run as the step."""

from __future__ import annotations

import time

import torch

_SIDES = {"cuda": 8192, "cpu": 1024}
_REPEATS = 8


def measured_ceiling(device: torch.device) -> float:
    """Floating-point operations a second of the fastest of eight square products: bfloat16 on CUDA, else float32."""
    side = _SIDES.get(device.type, _SIDES["cpu"])
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    torch.mm(left, right, out=product)  # the first call chooses a kernel
    return 2 * side**3 / min(_seconds(left, right, product) for _ in range(_REPEATS))


def _seconds(left: torch.Tensor, right: torch.Tensor, product: torch.Tensor) -> float:
    if left.device.type != "cuda":
        start = time.perf_counter()
        torch.mm(left, right, out=product)
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    torch.mm(left, right, out=product)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000

"""What a GPU can do at most, by the name its driver gives it; what a step could not be faster than."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Card:
    """Peaks of one GPU.

    Args:
        name: As `torch.cuda.get_device_name` gives it.
        flops: Floating-point operations a second of dense bfloat16 matrix products that accumulate in float32.
        bandwidth: Bytes a second of its memory.
    """

    name: str
    flops: float
    bandwidth: float

    def floor_seconds(self, *, flops: float, bytes: float) -> float:
        """Seconds for matrix work at the peak and then element-wise work at the bandwidth, one after the other.

        Both are done by kernels of their own, which use the whole card, so their times add up.
        """
        return flops / self.flops + bytes / self.bandwidth


_PEAKS = {
    "NVIDIA A100 80GB PCIe": (312, 1.935),
    "NVIDIA A100-PCIE-40GB": (312, 1.555),
    "NVIDIA A100-SXM4-40GB": (312, 1.555),
    "NVIDIA A100-SXM4-80GB": (312, 2.039),
    "NVIDIA GeForce RTX 3090": (71, 0.936),
    "NVIDIA GeForce RTX 4090": (165.2, 1.008),
    "NVIDIA H100 80GB HBM3": (989.4, 3.35),
    "NVIDIA H100 NVL": (835, 3.9),
    "NVIDIA H100 PCIe": (756, 2.0),
    "NVIDIA H200": (989.4, 4.8),
    "NVIDIA L4": (121, 0.3),
    "NVIDIA L40S": (362, 0.864),
    "NVIDIA RTX 6000 Ada Generation": (364.2, 0.96),
    "NVIDIA RTX A6000": (154.8, 0.768),
}
"""Name → TFLOP/s and TB/s, of NVIDIA's data sheets without sparsity; part of a card (MIG) has another name."""


def card_of(device: torch.device) -> Card | None:
    """The card that `device` is, or None if it is none or its peaks are not known."""
    return card_named(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def card_named(name: str) -> Card | None:
    """The card of exactly that name, or None."""
    if name not in _PEAKS:
        return None
    teraflops, terabytes = _PEAKS[name]
    return Card(name=name, flops=teraflops * 1e12, bandwidth=terabytes * 1e12)

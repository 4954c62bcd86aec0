"""The first results of FlashAttention-4 beside those of PyTorch's own kernels, on the run's own numbers.

A pre-release, whose private functions we call, compiles while a program runs: a test on another machine cannot speak
for it. (The wrong gradients of 2026-11-24, against which this was written, look like those of `models/read_back.py`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import count

import torch
from torch import Tensor

CALLS = 160
"""Calls of each kind that are compared: at least the first step of Gemma 3 4B, 34 layers of two calls."""

TOLERANCE = 0.1
"""Largest relative difference, ‖found − expected‖ / ‖expected‖. Right kernels differ by 0.003 (bfloat16 rounds)."""

_COMPILED = ("flash-attn-4", "nvidia-cutlass-dsl", "quack-kernels", "apache-tvm-ffi", "torch")


class FirstCalls:
    """Compares the first results of one function; later ones pass unseen.

    Args:
        what: The function, for messages.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._numbers: Iterator[int] = count()

    def check(self, found: tuple[Tensor, ...], expected: Callable[[], tuple[Tensor, ...]]) -> None:
        """Compare one call's results; waits for the device.

        Args:
            found: Results, of any shape and type.
            expected: Computes the same with PyTorch's kernels; called for the first `CALLS` calls only.

        Raises:
            RuntimeError: They differ by more than `TOLERANCE`.
        """
        if next(self._numbers) >= CALLS:
            return
        for number, (one, other) in enumerate(zip(found, expected(), strict=True)):
            difference = relative_difference(one, other)
            if not difference <= TOLERANCE:  # NaN, too
                raise RuntimeError(
                    f"found result {number} of {self.what}, {tuple(one.shape)}, {difference:.3g} from that of "
                    f"PyTorch's FlashAttention-2, expected at most {TOLERANCE}: FlashAttention-4 was compiled wrongly "
                    f"here ({_versions()}). Set model.attention_backend=flash, and install other versions to use flash4"
                )


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖ in float32; 0 where they are the same, infinities and nothing at all included.

    A query without keys has -∞ as its log-sum-exp in FlashAttention-4 and +∞ in FlashAttention-2: both say the same.
    """
    found, expected = found.float(), expected.float()
    same = (found == expected) | (found.isinf() & expected.isinf())
    distance = torch.where(same, 0.0, found - expected).norm()
    size = torch.where(expected.isfinite(), expected, 0.0).norm()
    return torch.where(distance == 0, 0.0, distance / size).item()


def _versions() -> str:
    found = []
    for package in _COMPILED:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed as a package")
    return ", ".join(found)

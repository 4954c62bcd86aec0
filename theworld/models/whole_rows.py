"""Compiled reductions that hold a whole row in registers, so that each row is read from memory once.

Inductor does so for rows of up to 1,024 numbers; a longer one is read twice, first for its sum, then for what is made
of it. Gemma's norms are over 2,560 and SigLIP's over 1,152, which fit as well (`experiments/README.md`, 2026-11-28).
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING

import torch

from theworld.models.compiled_code import tag_compiled_code

if TYPE_CHECKING:
    from torch._inductor.codegen.simd_kernel_features import SIMDKernelFeatures

LONGEST_ROW = 4096
"""Numbers of a row that still fit: 16 a thread, and as many of each further tensor that the kernel reads."""

CACHE_TAG = f"theworld-holds-rows-of-{LONGEST_ROW}"


def hold_whole_rows() -> None:
    """Have `torch.compile` hold rows of up to `LONGEST_ROW` numbers in every Triton kernel written from now on.

    A row is what lies side by side in memory and is reduced to one number. Calls after the first change nothing, and
    `triton.persistent_reductions=False`, PyTorch's own switch, still turns all of it off.

    Raises:
        RuntimeError: This PyTorch decides it in another way.
    """
    from torch._inductor import config
    from torch._inductor.choices import InductorChoices
    from torch._inductor.runtime.hints import ReductionHint
    from torch._inductor.virtualized import V

    usual = getattr(InductorChoices, "should_use_persistent_reduction", None)
    if hasattr(usual, "holds_rows"):
        return
    if usual is None or [*inspect.signature(usual).parameters] != ["features", "cooperative_reduction"]:
        raise RuntimeError(
            f"found PyTorch {torch.__version__}, whose compiler cannot be told to hold rows; expected 2.11 to 2.13; "
            "install one of these, or set model.compile_layers=false"
        )

    @wraps(usual)
    def should_use_persistent_reduction(features: SIMDKernelFeatures, cooperative_reduction: bool) -> bool:
        if usual(features, cooperative_reduction):
            return True
        of_rows = config.triton.persistent_reductions and features.get_reduction_hint() == ReductionHint.INNER
        return of_rows and V.graph.sizevars.statically_known_leq(features.reduction_numel, LONGEST_ROW)

    should_use_persistent_reduction.holds_rows = True  # type: ignore[attr-defined]
    InductorChoices.should_use_persistent_reduction = staticmethod(should_use_persistent_reduction)  # type: ignore[method-assign]
    tag_compiled_code(CACHE_TAG)

"""Compiled reductions that hold a whole row in registers, so that each row is read from memory once.

Inductor does so for rows of up to 1,024 numbers; a longer one is read twice, first for its sum, then for what is made
of it. Gemma's norms and SigLIP's are over 2,560 and 1,152, which fit as well: six layers of Gemma 3 4B, forward and
backward, take 51.1 ms in place of 51.6 on an H200, and compile no slower (`experiments/README.md`, 2026-11-28).
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from theworld.models.read_back import tag_compiled_code

LONGEST_ROW = 4096
"""Numbers of a row that still fit: 16 a thread, and as many of each further tensor that the kernel reads."""

CACHE_TAG = f"theworld-holds-rows-of-{LONGEST_ROW}"


def hold_whole_rows() -> None:
    """Have `torch.compile` hold rows of up to `LONGEST_ROW` numbers in every Triton kernel written from now on.

    Calls after the first change nothing. A row is what lies side by side in memory and is reduced to one number.
    """
    from torch._inductor import config  # two seconds, for compiled runs only
    from torch._inductor.choices import InductorChoices
    from torch._inductor.runtime.hints import ReductionHint
    from torch._inductor.virtualized import V

    usual = InductorChoices.should_use_persistent_reduction
    if hasattr(usual, "holds_rows"):
        return

    @wraps(usual)
    def should_use_persistent_reduction(features: Any, cooperative_reduction: bool) -> bool:
        inner = features.get_reduction_hint() == ReductionHint.INNER
        if inner and not cooperative_reduction and config.triton.persistent_reductions:
            return V.graph.sizevars.statically_known_leq(features.reduction_numel, LONGEST_ROW)
        return usual(features, cooperative_reduction)

    should_use_persistent_reduction.holds_rows = True  # type: ignore[attr-defined]
    InductorChoices.should_use_persistent_reduction = staticmethod(should_use_persistent_reduction)  # type: ignore[method-assign]
    tag_compiled_code(CACHE_TAG)

"""Compiled reductions that wait before they read back what they stored.

Inductor fuses several reductions over a row into one Triton kernel; one of its loops may store a buffer that a later
loop loads. Triton spreads the store and the load over threads in different ways, and nothing makes a warp wait for
another, so that it reads what was not written yet: whatever that memory held before. In the backward pass of the norms
of queries and keys two warps share each row of 256 float32 that they store, and one warp loads a whole row. Of the two
block sizes that Inductor tries for this kernel one is wrong: beside a right loss, gradients were 10⁵ times too large,
in nearly every step on an H100 and, by all appearance, in a few processes on an H200. Known to both projects:
pytorch#190519 (closed; 2.11 and 2.13 have no barrier), triton#10924 (open). What is added is what the first proposed, a
barrier between the loops; it costs no time that could be measured (`experiments/README.md`, 2026-11-28).

A store over what an earlier loop read needs none: Inductor works in place only where the value depends on all reads
before it, and so waits for a sum of theirs. What a compiled layer writes into its own inputs would; ours write nothing.
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import Any

import torch

from theworld.models.compiled_code import tag_compiled_code

CACHE_TAG = "theworld-waits-before-read-back"
"""Keeps this process from code that was compiled without the barrier and lies in PyTorch's cache."""

BARRIER = "tl.debug_barrier()"


def wait_before_read_back() -> None:
    """Put the barrier into every Triton kernel that `torch.compile` writes in this process from now on.

    Calls after the first change nothing.

    Raises:
        RuntimeError: This PyTorch writes its kernels in another way, so that the barrier cannot be placed.
    """
    from torch._inductor.codegen.common import CSE  # two seconds, for compiled runs only
    from torch._inductor.codegen.triton import TritonKernel

    load = TritonKernel.load
    if hasattr(load, "waits"):
        return
    if [*inspect.signature(load).parameters] != ["self", "name", "index"] or not hasattr(CSE(), "invalidated_stores"):
        raise RuntimeError(
            f"found PyTorch {torch.__version__}, whose compiler cannot be given the barrier that right gradients need; "
            "expected 2.11 to 2.13; install one of these, or set model.compile_layers=false"
        )

    @wraps(load)
    def waiting_load(self: Any, name: str, index: Any) -> Any:
        waited = vars(self).setdefault("waited_for", set())
        # Buffers whose stored values went out of scope when the loop that stored them ended.
        if name in self.cse.invalidated_stores and name not in waited:
            waited.add(name)
            self.body.writeline(BARRIER)  # ends before the loop that is being written
        return load(self, name, index)

    waiting_load.waits = True  # type: ignore[attr-defined]
    TritonKernel.load = waiting_load  # type: ignore[method-assign]
    tag_compiled_code(CACHE_TAG)

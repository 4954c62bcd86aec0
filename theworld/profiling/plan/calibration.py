"""What no simulation of tensors can see, as measured: every constant of the plan that is not derived is here.

Measured on one NVIDIA H200 (torch 2.11.0+cu130, transformers 5.17.0), 2026-11-24 and 2026-11-27, true dimensions and
random weights (`experiments/speed/results`); `experiments/planning` measures them again.
"""

from __future__ import annotations

MIB, GIB, GB = 2**20, 2**30, 10**9

MEASURED_ON = "NVIDIA H200, torch 2.11.0+cu130, 2026-11-24 and 2026-11-27"

CUBLAS_BYTES = 64 * MIB
"""Workspaces of cuBLAS, which PyTorch allocates as it does tensors: 32 MiB on Hopper (other cards take less) for each
of the two threads that multiply matrices, the forward pass's and the backward pass's."""

BLOCK_SHARE = 0.003
"""Of what is alive, what the allocator's blocks are larger than the tensors in them: a block of more than 1 MiB is not
cut when less than 1 MiB would be left. Peaks of 8.9 to 67.9 GiB were 0.0 to 0.6 % above the tensors without it."""

RESERVED_SHARE = 0.04
"""What the allocator must hold beside the peak, because free blocks are too small for what is asked next. Where memory
is plenty it holds more (2 to 13 % were seen), and gives that back before it fails."""

CONTEXT_BYTES = 780 * MIB
"""CUDA's context, its libraries' kernels and compiled ones: on the card, in no statistic of PyTorch's. 0.74 to 0.76 GiB
were seen beside a process that had the card for itself."""

NCCL_BYTES = 500 * MIB
"""Buffers of NCCL beside that, on several GPUs. Not measured here."""

FLOOR_RATIOS = {
    ("none", False): 1.7,
    ("selective", False): 2.0,
    ("full", False): 2.3,
    ("none", True): 1.9,
    ("selective", True): 2.2,
    ("full", True): 2.5,
}
"""(recompute, 8-bit base) → seconds of a step over the floor of `theworld.training.cards`, with `flash4`.

Rows of 10,152 tokens took 1.60 to 1.88 × (none), 2.27 and 2.30 × (full), 2.47 × (full, 8-bit). The other three are
guessed from these."""

OTHER_BACKENDS_RATIO = 1.08
"""Seconds with another attention backend than `flash4`: 0.32 s with `flash` against 0.295 s."""

SHORT_ROW_TOKENS = 4096
"""Below it the host is the limit, and a step takes longer than said: 2.7 × the floor at 2 × 978 tokens."""


def allocated_bytes(tensors: int) -> int:
    """`torch.cuda.max_memory_allocated` where the most that tensors take is `tensors` bytes."""
    return tensors + blocks_bytes(tensors) + CUBLAS_BYTES


def blocks_bytes(tensors: int) -> int:
    """By how much the allocator's blocks are larger than the tensors in them."""
    return round(BLOCK_SHARE * tensors)


def needed_bytes(allocated: int, *, gpus: int) -> int:
    """Memory that a card must have for a peak of `allocated` bytes."""
    return allocated + round(RESERVED_SHARE * allocated) + CONTEXT_BYTES + (NCCL_BYTES if gpus > 1 else 0)


def expected_ratio(recompute: str, *, low_bit: bool, backend: str) -> float:
    """Seconds of a step over the floor."""
    return FLOOR_RATIOS[recompute, low_bit] * (1.0 if backend == "flash4" else OTHER_BACKENDS_RATIO)

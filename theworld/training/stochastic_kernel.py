"""AdamW's update of all bfloat16 weights by one kernel, rounded stochastically. Needs Triton, which CUDA's PyTorch has.

The formula is torchao's (`torchao.optim.adam.single_param_adam`; there it is compiled a layer at a time, and needed 30
ms of an H200 and 55 ms of the host for Gemma's 4.3 billion weights in 874 tensors). Two things make the difference: a
call of the generator of random numbers gives 128 bits, of which torchao takes 16 and this kernel all, so that memory is
the limit; and tensors are found by their addresses, so that one launch updates them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

_LANES = 1024
"""Weights that share a call of the generator, eight to a call: what a block updates at a time."""

_PARTS = 8
"""Times that a block does so: 16 bits of the 128 each."""


@triton.jit(do_not_specialize=["count", "seed"])
def _update(  # type: ignore[no-untyped-def]
    addresses,  # int64[4, N]: of weights, gradients, means and squares
    sizes,  # int64[N]
    tensor_of,  # int32[blocks]
    chunk_of,  # int32[blocks]
    count,  # N
    seed,
    lr,
    gain1,  # 1 - beta1, which float32 would not hold if it were computed here
    gain2,
    weight_decay,
    eps,
    correction1,
    root_correction2,
    ALIGNED: tl.constexpr,
    LANES: tl.constexpr,
    PARTS: tl.constexpr,
):
    block = tl.program_id(0)
    tensor = tl.load(tensor_of + block)
    first = tl.load(chunk_of + block).to(tl.int64) * (PARTS * LANES)
    size = tl.load(sizes + tensor)
    weights = tl.load(addresses + tensor).to(tl.pointer_type(tl.bfloat16))
    gradients = tl.load(addresses + count + tensor).to(tl.pointer_type(tl.bfloat16))
    means = tl.load(addresses + 2 * count + tensor).to(tl.pointer_type(tl.bfloat16))
    squares = tl.load(addresses + 3 * count + tensor).to(tl.pointer_type(tl.bfloat16))
    if ALIGNED:  # which lets eight numbers be read at once
        size = tl.multiple_of(size, 16)
        weights, gradients = tl.multiple_of(weights, 16), tl.multiple_of(gradients, 16)
        means, squares = tl.multiple_of(means, 16), tl.multiple_of(squares, 16)
    lanes = tl.arange(0, LANES)
    word0, word1, word2, word3 = tl.randint4x(seed, block * LANES + lanes)
    for part in tl.static_range(PARTS):
        word = word0 if part // 2 == 0 else word1 if part // 2 == 1 else word2 if part // 2 == 2 else word3
        noise = (word >> (16 * (part % 2))) & 0xFFFF
        at = first + part * LANES + lanes
        inside = at < size
        gradient = tl.load(gradients + at, mask=inside, other=0.0).to(tl.float32)
        mean = tl.load(means + at, mask=inside, other=0.0).to(tl.float32)
        square = tl.load(squares + at, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(weights + at, mask=inside, other=0.0).to(tl.float32)
        weight -= lr * weight_decay * weight
        mean += gain1 * (gradient - mean)
        square += gain2 * (gradient * gradient - square)
        weight -= lr * (mean / correction1) / (tl.sqrt(square) / root_correction2 + eps)
        # Away from zero with the odds that the 16 bits which are cut off make; a carry is what rounds up.
        bits = weight.to(tl.int32, bitcast=True)
        rounded = ((bits + noise.to(tl.int32)) >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
        rounded = tl.where(weight == weight, rounded, float("nan"))  # whose bits would carry into the sign
        tl.store(weights + at, rounded, mask=inside)
        tl.store(means + at, mean.to(tl.bfloat16), mask=inside)
        tl.store(squares + at, square.to(tl.bfloat16), mask=inside)


def update(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    *,
    step: float,
    lr: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
    seed: int,
) -> None:
    """One step of AdamW on all `parameters`, in place. Launches one kernel, and does not wait for the device.

    Args:
        parameters: bfloat16, of any shapes, without gaps, all on the current CUDA device.
        gradients: bfloat16, in the order, the shapes and the layout of `parameters`.
        means: bfloat16, running means of gradients; likewise.
        squares: bfloat16, running means of their squares; likewise.
        step: Number of this step, from 1.
        lr: Learning rate.
        beta1: Share of the old mean that is kept.
        beta2: Share of the old mean of squares that is kept.
        weight_decay: Decoupled, a factor of `lr`.
        eps: Added to the root of the squares.
        seed: Of the rounding, 0 to 2^31 - 1. The same seed and the same tensors in the same order are rounded alike.
    """
    device, count = parameters[0].device, len(parameters)
    every = [*parameters, *gradients, *means, *squares]
    sizes, tensor_of, chunk_of = _blocks(tuple(parameter.numel() for parameter in parameters), device)
    places = [tensor.data_ptr() for tensor in every]
    addresses = torch.tensor(places, dtype=torch.int64, pin_memory=device.type == "cuda").to(device, non_blocking=True)
    _update[(len(tensor_of),)](
        addresses,
        sizes,
        tensor_of,
        chunk_of,
        count,
        seed,
        lr,
        1 - beta1,
        1 - beta2,
        weight_decay,
        eps,
        1 - beta1**step,
        (1 - beta2**step) ** 0.5,
        ALIGNED=all(place % 16 == 0 for place in places) and all(p.numel() % 16 == 0 for p in parameters),
        LANES=_LANES,
        PARTS=_PARTS,
    )


@lru_cache(maxsize=8)
def _blocks(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Sizes as int64[N]; of every block its tensor and which chunk of it, int32[blocks]."""
    counts = torch.tensor([-(-size // (_LANES * _PARTS)) for size in sizes])
    tensor_of = torch.repeat_interleave(torch.arange(len(sizes)), counts)
    chunk_of = torch.arange(len(tensor_of)) - (counts.cumsum(0) - counts)[tensor_of]
    return torch.tensor(sizes).to(device), tensor_of.int().to(device), chunk_of.int().to(device)

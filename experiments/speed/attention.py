"""One attention layer of Gemma 3 4B over a packed row of two documents: our kernels forward and backward.

    python experiments/speed/attention.py --output attention.json     # one GPU; flash4 needs the extra `flash4`

8 query and 4 key heads of 256, 2 x 5076 tokens in bfloat16, laid out as the model gives them, with room for two more
documents. Milliseconds, and relative differences of output and gradients from PyTorch's FlashAttention-2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from theworld.models.attention.sequences import Sequences
from theworld.models.attention.varlen import varlen, varlen_backward

LENGTH, DOCUMENTS = 5076, 2
SCALE = 256**-0.5


def states(heads: int) -> Tensor:
    """bfloat16[L, heads, 256], a view of what the rotary embedding returns."""
    whole = torch.randn(1, heads, LENGTH * DOCUMENTS, 256, device="cuda", dtype=torch.bfloat16)
    return whole.transpose(1, 2).flatten(0, 1)


def milliseconds(call: Callable[[], object], *, repeats: int = 20) -> float:
    for _ in range(3):
        call()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / repeats


def difference(found: Tensor, expected: Tensor) -> float:
    return ((found.float() - expected.float()).norm() / expected.float().norm()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", nargs="+", default=["flash", "flash4"])
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    query, key, value = states(8), states(4), states(4)
    grad = torch.randn_like(query).contiguous()
    total = LENGTH * DOCUMENTS
    ends = torch.tensor([0, LENGTH, total, total, total], dtype=torch.int32, device="cuda")
    results: dict[str, object] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    for window in (None, 1024):
        expected: list[Tensor] = []
        for kernel in arguments.kernels:
            sequences = Sequences(
                query_ends=ends,
                key_ends=ends,
                max_queries=total,
                max_keys=total,
                window=(-1 if window is None else window - 1, 0),
                scale=SCALE,
                kernel=kernel,
            )
            output, lse = varlen(query, key, value, sequences)
            found = [output, *varlen_backward(grad, query, key, value, output, lse, sequences)]
            expected = expected or found
            results[f"{kernel}, window {window}"] = {
                "forward_ms": milliseconds(lambda s=sequences: varlen(query, key, value, s)),
                "backward_ms": milliseconds(
                    lambda s=sequences, o=output, e=lse: varlen_backward(grad, query, key, value, o, e, s)
                ),
                "differences": [difference(a, b) for a, b in zip(found, expected, strict=True)],
            }
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

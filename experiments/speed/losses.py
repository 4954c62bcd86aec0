"""The loss at the targets, three ways: all logits at once, ours in chunks, and Liger's. Time and memory, and agreement.

    python experiments/speed/losses.py --output losses.json                  # on a GPU; prints the table as markdown
    python experiments/speed/losses.py --ways full ours --rows 360 720       # without Liger

Random bfloat16 hidden states and head at Gemma 3 4B's sizes, with the head frozen (projection, vision) and trained
(language). Forward and backward pass: median by CUDA events, and the most memory above what the inputs take.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from theworld.models.losses import target_cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""bfloat16[M, D], bfloat16[V, D], int64[M] → summed cross-entropy."""


def full(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """One product, all logits in float32, autograd's own backward pass: what `models/losses.py` did before."""
    return F.cross_entropy(F.linear(hidden, head).float(), targets, reduction="sum")


def ours(hidden: Tensor, head: Tensor, targets: Tensor, *, chunk_rows: int) -> Tensor:
    """`target_cross_entropy` on rows that are all targets."""
    labels = torch.cat([targets[:1], targets])[None]  # (1, M + 1): the row before each target is its own index
    positions = torch.arange(len(targets), device=targets.device)
    return target_cross_entropy(hidden[None], head, labels, positions, chunk_rows=chunk_rows)


def liger(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Liger's fused linear cross-entropy, with its own choice of chunks."""
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    # After the targets: bias, class weights, index to ignore, squared logsumexp's and smoothing's share, reduction.
    result = LigerFusedLinearCrossEntropyFunction.apply(hidden, head, targets, None, None, -100, 0.0, 0.0, "sum")
    return result[0] if isinstance(result, tuple) else result


def ways(names: list[str], chunks: list[int]) -> dict[str, Loss]:
    """The named ways to compute the loss; ours once for each size of a chunk."""
    found: dict[str, Loss] = {}
    for name in names:
        if name == "ours":
            found |= {f"ours, chunks of {rows}": partial(ours, chunk_rows=rows) for rows in chunks}
        else:
            found[name] = {"full": full, "liger": liger}[name]
    return found


def gradients(loss: Loss, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """The loss, and the gradients of what requires one."""
    value = loss(*inputs)
    value.backward()
    result = (value.detach(), *(t.grad for t in inputs[:2] if t.grad is not None))
    for tensor in inputs[:2]:
        tensor.grad = None
    return result


def difference(ours: tuple[Tensor, ...], reference: tuple[Tensor, ...]) -> float:
    """Largest relative difference of loss and gradients, by their norms."""
    pairs = zip(ours, reference, strict=True)
    return max(float((a.float() - b.float()).norm() / b.float().norm()) for a, b in pairs)


def measure(loss: Loss, inputs: tuple[Tensor, Tensor, Tensor], *, warmup: int, steps: int) -> dict[str, float]:
    """Milliseconds of both passes, and GiB above what was there before."""
    for _ in range(warmup):
        gradients(loss, inputs)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(steps):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        gradients(loss, inputs)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return {
        "milliseconds": statistics.median(times),
        "fastest": min(times),
        "gib": (torch.cuda.max_memory_allocated() - before) / 2**30,
    }


def sample(rows: int, *, hidden: int, vocabulary: int, head_trains: bool, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Random inputs whose logits have about Gemma's spread."""
    generator = torch.Generator(device).manual_seed(0)
    options = {"generator": generator, "device": device}
    states = torch.randn(rows, hidden, **options).bfloat16().requires_grad_()
    head = (torch.randn(vocabulary, hidden, **options) * 3 * hidden**-0.5).bfloat16().requires_grad_(head_trains)
    return states, head, torch.randint(vocabulary, (rows,), **options)


def markdown(results: list[dict[str, object]]) -> str:
    """The results as a table."""
    lines = ["| targets | head | way | ms | GiB above | off from full |", "|---:|---|---|---:|---:|---:|"]
    for r in results:
        numbers = (
            f"{r['milliseconds']:.2f} | {r['gib']:.2f} | {r['difference']:.1e}" if "gib" in r else f"{r['error']} | |"
        )
        lines.append(f"| {r['targets']} | {'trained' if r['head_trains'] else 'frozen'} | {r['way']} | {numbers} |")
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Every way at every number of targets."""
    results: list[dict[str, object]] = []
    for rows in arguments.rows:
        for head_trains in (False, True):
            sizes = {"hidden": arguments.hidden, "vocabulary": arguments.vocabulary}
            inputs = sample(rows, **sizes, head_trains=head_trains, device="cuda")
            reference = gradients(full, inputs)
            for name, loss in ways(arguments.ways, arguments.chunks).items():
                result = {"targets": rows, "head_trains": head_trains, "way": name}
                try:
                    result["difference"] = difference(gradients(loss, inputs), reference)
                    result |= measure(loss, inputs, warmup=arguments.warmup, steps=arguments.steps)
                except torch.OutOfMemoryError:  # is a result; the others still run
                    result["error"] = "out of memory"
                    torch.cuda.empty_cache()
                results.append(result)
                print(result, flush=True)
            del inputs, reference
            torch.cuda.empty_cache()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[360, 720, 2048, 8192])
    parser.add_argument("--ways", nargs="+", default=["full", "ours", "liger"])
    parser.add_argument("--chunks", nargs="+", type=int, default=[512, 1024, 2048, 4096])
    parser.add_argument("--hidden", type=int, default=2560)
    parser.add_argument("--vocabulary", type=int, default=262_208)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", default="losses.json")
    arguments = parser.parse_args()
    results = run(arguments)
    about = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "results": results}
    Path(arguments.output).write_text(json.dumps(about, indent=1) + "\n")
    print(f"\n{about['card']}, torch {about['torch']}\n\n{markdown(results)}")


if __name__ == "__main__":
    main()

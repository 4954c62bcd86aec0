"""Where a step's GPU time goes: kernels of one variant of `step.py`, grouped by name.

python experiments/speed/kernel_times.py --variant projection_cached --output kernels.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import step
import torch
from torch.profiler import ProfilerActivity, profile

from theworld.models.theworld import TheWorld


def kernels(model: TheWorld, variant: str, *, steps: int) -> dict[str, tuple[float, int]]:
    """Kernel name → milliseconds and launches a step."""
    one = step.run(variant, model)
    for _ in range(4):
        one()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(steps):
            one()
        torch.cuda.synchronize()
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for event in recorded.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            sums[event.name][0] += event.device_time_total / 1000 / steps
            sums[event.name][1] += 1
    return {
        name: (time, round(count / steps)) for name, (time, count) in sorted(sums.items(), key=lambda item: -item[1][0])
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    model = step.random_model(enable_world=not arguments.variant.startswith("gemma"))
    found = kernels(model, arguments.variant, steps=arguments.steps)
    Path(arguments.output).write_text(json.dumps(found, indent=1) + "\n")
    total = sum(time for time, _ in found.values())
    print(f"{arguments.variant}: {total:.1f} ms of kernels, {sum(n for _, n in found.values())} launches a step")
    for name, (time, count) in list(found.items())[:45]:
        print(f"{time:8.2f} ms {count:5d} × {name[:110]}")


if __name__ == "__main__":
    main()

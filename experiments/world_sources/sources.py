"""What a world source costs: seconds and peak memory a sample for the frame, hidden states, and rollouts.

    python -m experiments.world_sources.sources --output sources.json            # true dimensions, on the GPU
    python -m experiments.world_sources.sources --output tiny.json --tiny        # the CPU

Random weights, 512² images, under bfloat16 autocast as `theworld data cache` runs them, one image at a time and
`--batch` at a time. Each number is the median of `--repeats` calls after one that warms up; a rollout makes 35
denoising steps without guidance.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from experiments.world_sources.cosmos import random_transformer, scheduler
from theworld.models.configuration import TheWorldConfig
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.denoiser import Denoiser
from theworld.models.world_sources.hidden_states import HiddenStates, HiddenStatesSettings
from theworld.models.world_sources.rollout import Rollout, RolloutSettings

ROLLOUTS = (1, 4, 8)
BLOCK = {True: 1, False: 14}
"""Whose hidden states are taken; a block in the middle."""


def measure(encode: Callable[[Tensor, list[str]], Tensor], pixels: Tensor, repeats: int) -> dict[str, object]:
    """Median seconds of a call, and the most memory, GiB, weights included."""
    cuda, seconds = pixels.is_cuda, []
    keys = [str(number) for number in range(len(pixels))]
    with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=cuda):
        for _ in range(repeats + 1):
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            latents = encode(pixels, keys)
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    assert torch.isfinite(latents).all()
    return {
        "seconds_a_sample": statistics.median(seconds[1:]) / len(pixels),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "latents": list(latents.shape),
        "batch": len(pixels),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument(
        "--compiled", action="store_true", help="the denoiser's blocks, as on a GPU outside this script"
    )
    parser.add_argument("--only", nargs="+", help="words of which a source's name must have one")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    tiny, device = arguments.tiny, "cpu" if arguments.tiny else "cuda"
    config = TheWorldConfig.preset("tiny" if tiny else "gemma3-4b")
    torch.manual_seed(0)
    vae = WorldEncoder.from_config(config.vae_config).to(device).eval()
    if not tiny:
        for parameter in vae.parameters():  # the statistics of latents stay in float32
            parameter.data = parameter.data.bfloat16()
    side = 64 if tiny else 512
    pixels = torch.rand(arguments.batch, 3, side, side, device=device) * 2 - 1
    results: dict[str, object] = {
        "card": "CPU" if tiny else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "denoising_steps": arguments.steps,
        "compiled": arguments.compiled,
    }
    denoiser = Denoiser(random_transformer(tiny=tiny, device=device), scheduler())
    results["denoiser_parameters"] = sum(p.numel() for p in denoiser.transformer.parameters())
    sources: dict[str, Callable[[Tensor, list[str]], Tensor]] = {"frame": lambda pixels, keys: vae(pixels)}
    for k in ROLLOUTS:
        settings = RolloutSettings(num_world_steps=k, num_inference_steps=arguments.steps)
        sources[f"rollout k={k}"] = Rollout(vae, denoiser, settings).encode
    # Last, as it takes the denoiser's later blocks away.
    hidden = f"hidden states of block {BLOCK[tiny]}"
    if arguments.compiled:
        denoiser.compile_blocks(backend="eager" if tiny else "inductor")
    for name in [*sources, hidden]:
        if name == hidden:
            sources[name] = HiddenStates(vae, denoiser, HiddenStatesSettings(block=BLOCK[tiny])).encode
        if arguments.only and not any(word in name for word in arguments.only):
            continue
        for count in sorted({1, arguments.batch}):
            repeats = arguments.repeats if name.startswith("rollout") else 10 * arguments.repeats
            found = measure(sources[name], pixels[:count], repeats)
            results[f"{name}, {count} at a time"] = found
            print(f"{name}, {count} at a time: {found}", flush=True)
            arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

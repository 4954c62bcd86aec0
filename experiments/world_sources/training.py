"""A projection step on cached latents of 1 + k frames: seconds and memory, by frames and tokens a frame.

    python -m experiments.world_sources.training --output training.json          # true dimensions, on the GPU

Random weights, a row of two samples, through the Lightning module as `experiments/speed/step.py` runs it; latents
and image features are given. `ARMS` says frames, tokens a frame, and which layers are recomputed.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))

from clock import Clock
from rows import TARGETS, TEXT, WORLD_IDS, packed_row, samples_of
from step import Variant, run_ours

from theworld.models.configuration import TheWorldConfig
from theworld.models.theworld import TheWorld

ARMS = {
    "k=0, 4096 a frame": (0, None, "none"),
    "k=1, 4096 a frame": (1, None, "none"),
    "k=4, 4096 a frame, recompute": (4, None, "full"),
    "k=4, 256 a frame": (4, 256, "none"),
    "k=8, 1024 a frame": (8, 1024, "none"),
}


def model_of(k: int, tokens: int | None) -> TheWorld:
    """Random bfloat16 weights on the GPU."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = TheWorldConfig.preset("gemma3-4b", num_world_steps=k, world_tokens_per_frame=tokens, **WORLD_IDS)
    with torch.device("cuda"):
        model = TheWorld(config)
    torch.set_default_dtype(torch.float32)
    torch.nn.init.normal_(model.gemma.model.multi_modal_projector.mm_input_projection_weight, std=0.02)
    return model.train()


def measure(name: str, steps: int, backend: str) -> dict[str, object]:
    """One arm."""
    k, tokens, recompute = ARMS[name]
    model = model_of(k, tokens)
    samples = samples_of(model, text=TEXT[True], targets=TARGETS)
    batch, clock = packed_row(model, samples, cached=True), Clock(steps)
    present = batch.world_latents
    later = torch.randn(*present.shape[:2], k, *present.shape[3:], dtype=present.dtype)
    batch = replace(batch, world_latents=torch.cat([present, later], dim=2).pin_memory())
    variant = Variant(what=name, cached=True, recompute=recompute, backend=backend)
    first = run_ours(variant, model, clock, [batch])
    return clock.result() | {
        "world_tokens_a_sample": model.config.num_world_tokens,
        "tokens": batch.input_ids.numel(),
        "loss": first.loss,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=[*ARMS], choices=[*ARMS])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--backend", default="flash", choices=["flash", "flash4"])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    results: dict[str, object] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    results["backend"] = arguments.backend
    for name in arguments.arms:
        results[name] = measure(name, arguments.steps, arguments.backend)
        print(f"{name}: {results[name]}", flush=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

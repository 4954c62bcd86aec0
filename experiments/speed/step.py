"""One training step at true dimensions with random weights: seconds, peak memory, and how far from the arithmetic.

    python experiments/speed/step.py --variants projection projection_cached lean --output out.json

Rows are 2 × 5076 tokens (world 4096, image 256, text 721), 360 targets a sample. Each variant: warm-up, then the
median of `--steps` steps by CUDA events.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor
from torch.nn import functional as F

from theworld.models.configuration import TheWorldConfig
from theworld.models.execution import set_execution
from theworld.models.image_features import image_features
from theworld.models.live_rows import plan_live_rows
from theworld.models.losses import find_target_positions
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.models.world_encoder import FrameConv3d

SAMPLES, TARGETS = 2, 360
TEXT = {True: 721, False: 468}
"""Text tokens of a sample, with the world branch (5076 tokens together) and without it (725)."""

WORLD_IDS = {"start_of_world_token_id": 6, "world_token_id": 7, "end_of_world_token_id": 8}


def batch_of(config: TheWorldConfig, *, packed: bool) -> dict[str, Tensor]:
    """The same two samples, packed in one row or as two rows."""
    device = "cuda"
    generator = torch.Generator(device).manual_seed(0)
    image_id, tokens = config.gemma_config.image_token_id, config.num_world_tokens if config.enable_world else 0
    length = TEXT[config.enable_world]
    text = torch.randint(1000, 200_000, (SAMPLES, length), generator=generator, device=device)
    head = torch.full((SAMPLES, 1), 2, device=device)
    world = torch.full((SAMPLES, tokens), WORLD_IDS["world_token_id"], device=device)
    image = torch.full((SAMPLES, 256), image_id, device=device)
    edge = torch.full((SAMPLES, 1), 6, device=device)
    parts = (
        [head, edge, world, edge + 2, text[:, :20], image, text[:, 20:]]
        if tokens
        else [head, text[:, :20], image, text[:, 20:]]
    )
    input_ids = torch.cat(parts, dim=1)
    labels = torch.full_like(input_ids, -100)
    labels[:, -TARGETS:] = input_ids[:, -TARGETS:]
    documents = torch.arange(SAMPLES, device=device)[:, None].expand_as(input_ids)
    if not packed:
        documents = torch.zeros_like(input_ids)
    rows = {"input_ids": input_ids, "labels": labels, "document_ids": documents}
    if packed:
        rows = {name: value.reshape(1, -1) for name, value in rows.items()}
    rows["target_positions"] = find_target_positions(rows["labels"])
    rows["pixel_values"] = torch.randn(SAMPLES, 3, 896, 896, generator=generator, device=device, dtype=torch.bfloat16)
    if tokens:
        rows["world_pixel_values"] = torch.rand(SAMPLES, 3, 512, 512, generator=generator, device=device) * 2 - 1
    return rows


def measure(step: Callable[[], Tensor], *, warmup: int, steps: int) -> dict[str, float]:
    started = time.time()
    step()
    torch.cuda.synchronize()
    first = time.time() - started
    for _ in range(warmup):
        loss = step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(steps):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        loss = step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return {
        "seconds": statistics.median(times),
        "fastest": min(times),
        "first_step": first,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
        "loss": loss.item(),
    }


def train(model: TheWorld, groups: set[str]) -> list[torch.nn.Parameter]:
    for name, members in parameter_groups(model).items():
        for _, parameter in members:
            parameter.requires_grad_(name in groups)
            parameter.grad = None
    return [p for p in model.parameters() if p.requires_grad]


def seed_style(model: TheWorld) -> Callable[[], Tensor]:
    """HF modules, a dense mask, a KV cache, logits of every row in float32, foreach AdamW, a 3-D VAE."""
    parameters = train(model, {"world_projector"} if model.config.enable_world else {"vision", "language"})
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, foreach=True)
    rows = batch_of(model.config, packed=False)
    labels = rows.pop("labels")
    rows.pop("target_positions")

    def step() -> Tensor:
        logits = model(**rows, use_cache=True).logits.float()
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def ours(
    model: TheWorld,
    groups: set[str],
    *,
    cached: bool = False,
    packed: bool = True,
    trim: bool = True,
    optimizer: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer] | None = None,
) -> Callable[[], Tensor]:
    parameters = train(model, groups)
    made = (optimizer or (lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True)))(parameters)
    rows = batch_of(model.config, packed=packed)
    if cached:
        with torch.no_grad():
            rows["image_features"] = image_features(model.gemma, rows.pop("pixel_values"))
            if model.config.enable_world:
                rows["world_latents"] = model.cosmos_encoder.vae(rows.pop("world_pixel_values"))
    if trim:
        cpu = {name: rows[name].cpu() for name in ("document_ids", "target_positions")}
        types = model.token_types(rows["input_ids"]).cpu()
        text = model.config.get_text_config()
        rows["live_rows"] = plan_live_rows(cpu["document_ids"], types, cpu["target_positions"], text, image_tokens=256)

    def step() -> Tensor:
        loss = model(**rows).loss
        loss.backward()
        made.step()
        made.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def three_dimensional(model: TheWorld, on: bool) -> None:
    for module in model.cosmos_encoder.vae.modules():
        if type(module) in (WanCausalConv3d, FrameConv3d):
            module.__class__ = WanCausalConv3d if on else FrameConv3d


def liger(model: TheWorld) -> None:
    from liger_kernel.transformers import apply_liger_kernel_to_gemma3

    apply_liger_kernel_to_gemma3(
        rope=True,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
        layer_norm=True,
        rms_norm=True,
        geglu=True,
        model=model.gemma,
    )


def stochastic_adamw(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    from torchao.optim import _AdamW

    return _AdamW(parameters, lr=1e-5, bf16_stochastic_round=True)


def run(name: str, model: TheWorld) -> Callable[[], Tensor]:
    """Set the model up for the named variant."""
    projector, everything = {"world_projector"}, {"world_projector", "language"}
    model.train()
    model.attention_backend = "sdpa" if name in ("seed", "gemma_seed", "compiled_sdpa", "liger_sdpa") else "flash"
    if name.endswith("flex"):
        model.attention_backend = "flex"
    if model.config.enable_world:
        three_dimensional(model, name in ("seed", "liger_sdpa", "liger_flex", "compiled_sdpa"))
    if name.startswith("liger"):
        liger(model)
    recompute = {"lean": "full", "half": "selective"}.get(name, "none")
    plain = name.startswith("liger") or name.endswith(("seed", "eager"))
    set_execution(model, compiled=not plain, recompute=recompute)
    if name.endswith("seed"):
        return seed_style(model)
    if name in ("language", "language_fused"):
        return ours(model, everything, cached=True, optimizer=stochastic_adamw if name == "language" else None)
    if name == "vision":
        return ours(model, projector | {"vision"})
    if name.startswith("gemma"):
        return ours(model, {"vision", "language"}, packed=True)
    baseline = name in ("compiled_sdpa", "liger_sdpa", "liger_flex")
    trim = not baseline and "whole" not in name
    return ours(model, projector, cached="cached" in name, packed=not baseline, trim=trim)


def random_model(*, enable_world: bool) -> TheWorld:
    """Gemma 3 4B and the Cosmos encoder with random bfloat16 weights, on the GPU."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = TheWorld(
            TheWorldConfig.preset("gemma3-4b", enable_world=enable_world, **(WORLD_IDS if enable_world else {}))
        )
    torch.set_default_dtype(torch.float32)
    torch.nn.init.normal_(model.gemma.model.multi_modal_projector.mm_input_projection_weight, std=0.02)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", nargs="+", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    arguments = parser.parse_args()
    started = time.time()
    model = random_model(enable_world=not arguments.variants[0].startswith("gemma"))
    print(
        f"model of {sum(p.numel() for p in model.parameters()):,} parameters after {time.time() - started:.0f} s",
        flush=True,
    )
    results = {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    for name in arguments.variants:
        torch._dynamo.reset()
        before = torch.cuda.memory_allocated() / 2**30
        try:
            results[name] = measure(run(name, model), warmup=arguments.warmup, steps=arguments.steps)
            results[name]["gib_before"] = before
        except Exception as error:  # a variant that fails is a result; the others still run
            results[name] = {"error": f"{type(error).__name__}: {error}"[:2000]}
            import traceback

            traceback.print_exc()
        print(f"{time.time() - started:.0f} s {name}: {results[name]}", flush=True)
        for parameter in model.parameters():
            parameter.grad = None
        gc.collect()
        torch.cuda.empty_cache()
        Path(arguments.output).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

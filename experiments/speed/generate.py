"""Prefill and decode of `TheWorld.generate` against transformers' own `generate` of Gemma 3 alone, on the same weights.

    python experiments/speed/generate.py --output generate.json      # random weights at true dimensions, on the GPU
    python experiments/speed/generate.py --tiny --output tiny.json   # the tiny base, on the CPU

Three models in turns, greedily: ours with world tokens, ours with `enable_world=False`, and transformers'. The last two
get the same input, so their difference is what our wrapper costs. A prompt has one image and `--text` tokens of text;
prefill is a `generate` of one token, decode a whole one less that. SigLIP and the world encoder must have run once in
each; if not, the script fails. Writes JSON, and a table as markdown beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from rows import random_model
from torch import Tensor, nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from theworld.assets import TINY_BASE
from theworld.models.configuration import TheWorldConfig
from theworld.models.theworld import TheWorld

TEXT = {"true": 721, "tiny": 60}
"""Text tokens of a prompt."""

Inputs = dict[str, Tensor]


def without_world(model: TheWorld) -> TheWorld:
    """The same Gemma behind our wrapper with the world branch off; no weight is copied."""
    fields = {"gemma_config": model.config.gemma_config, "vae_config": model.config.vae_config, "enable_world": False}
    with torch.device("meta"):
        plain = TheWorld(TheWorldConfig(**fields))
    plain.gemma = model.gemma
    plain.attention_backend = model.attention_backend
    plain.generation_config = model.generation_config
    return plain.eval()


def transformers_own(model: TheWorld) -> Gemma3ForConditionalGeneration:
    """Gemma 3 as transformers runs it, with the same weights in memory of its own."""
    config = Gemma3Config(**model.config.gemma_config.to_dict())
    with torch.device("meta"):
        gemma = Gemma3ForConditionalGeneration._from_config(config, attn_implementation="sdpa", dtype=model.dtype)
    gemma = gemma.to_empty(device=model.device)
    missing, unexpected = gemma.load_state_dict(model.gemma.state_dict(), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise RuntimeError(f"found missing {missing} and unexpected {unexpected} weights, expected those of our Gemma")
    gemma.tie_weights()
    for name, buffer in model.gemma.named_buffers():  # those that no state dict has: rotary frequencies, positions
        gemma.get_buffer(name).copy_(buffer)
    assert gemma.config.text_config._attn_implementation == "sdpa"
    gemma.generation_config = model.generation_config
    return gemma.eval()


def prompts(model: TheWorld, *, batch: int, text: int, world: bool) -> Inputs:
    """[BOS] ([SOW] world [EOW]) 20 text, image, text: the same text and image in both."""
    config, device = model.config, model.device
    generator = torch.Generator(device).manual_seed(0)
    vision = config.gemma_config.vision_config
    low, high = 100, min(200_000, config.gemma_config.text_config.vocab_size)
    words = torch.randint(low, high, (batch, text), generator=generator, device=device)

    def repeated(token: int | None, count: int) -> Tensor:
        return torch.full((batch, count), token, device=device)

    parts = [repeated(2, 1)]
    if world:
        parts += [
            repeated(config.start_of_world_token_id, 1),
            repeated(config.world_token_id, config.num_world_tokens),
            repeated(config.end_of_world_token_id, 1),
        ]
    image = repeated(config.gemma_config.image_token_id, config.gemma_config.mm_tokens_per_image)
    input_ids = torch.cat([*parts, words[:, :20], image, words[:, 20:]], dim=1)  # (B, T)
    shape = (batch, 3, vision.image_size, vision.image_size)
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "token_type_ids": model.token_types(input_ids),
        "pixel_values": torch.randn(shape, generator=generator, device=device).to(model.dtype),
    }
    if world:
        frames = (batch, 3, config.world_image_size, config.world_image_size)
        inputs["world_pixel_values"] = torch.rand(frames, generator=generator, device=device) * 2 - 1
    return inputs


@contextmanager
def counted(modules: dict[str, nn.Module]) -> Iterator[dict[str, int]]:
    """How often each of `modules` runs."""
    counts = dict.fromkeys(modules, 0)

    def hook(name: str):
        def count(*_: object) -> None:
            counts[name] += 1

        return count

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def timed(model: TheWorld | Gemma3ForConditionalGeneration, inputs: Inputs, *, tokens: int) -> tuple[float, Tensor]:
    """Seconds of one greedy `generate` of exactly `tokens` tokens, and the tokens, int64[B, tokens]."""
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    out = model.generate(**inputs, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    made = out[:, inputs["input_ids"].shape[1] :]
    assert made.shape[1] == tokens, f"found {made.shape[1]} new tokens, expected {tokens}"
    return seconds, made


def towers_of(model: TheWorld | Gemma3ForConditionalGeneration) -> dict[str, nn.Module]:
    gemma = model.gemma if isinstance(model, TheWorld) else model
    towers = {"siglip": gemma.model.vision_tower}
    if isinstance(model, TheWorld) and model.cosmos_encoder is not None:
        towers["world_encoder"] = model.cosmos_encoder.vae
    return towers


def measure(
    models: dict[str, TheWorld | Gemma3ForConditionalGeneration],
    inputs: dict[str, Inputs],
    *,
    tokens: int,
    repeats: int,
) -> dict[str, dict[str, object]]:
    """Model → medians over `repeats` turns, after one that warms up."""
    first: dict[str, list[float]] = {name: [] for name in models}
    whole: dict[str, list[float]] = {name: [] for name in models}
    made: dict[str, Tensor] = {}
    counts: dict[str, dict[str, int]] = {}
    for turn in range(repeats + 1):
        for name, model in models.items():
            one, _ = timed(model, inputs[name], tokens=1)
            with counted(towers_of(model)) as counts[name]:
                every, made[name] = timed(model, inputs[name], tokens=tokens)
            if set(counts[name].values()) != {1}:
                raise RuntimeError(f"found {counts[name]} runs of the towers in a generate of {name}, expected 1 each")
            if turn:
                first[name].append(one)
                whole[name].append(every)
    results: dict[str, dict[str, object]] = {}
    for name in models:
        batch, length = inputs[name]["input_ids"].shape
        prefill = statistics.median(first[name])
        decode = statistics.median(w - f for w, f in zip(whole[name], first[name], strict=True)) / (tokens - 1)
        results[name] = {
            "batch": batch,
            "prompt_tokens": length,
            "prefill_seconds": prefill,
            "prefill_tokens_per_second": batch * length / prefill,
            "decode_seconds_per_token": decode,
            "decode_tokens_per_second": batch / decode,
            "tower_runs": counts[name],
        }
    same = (made["ours, world off"] == made["transformers"]).float().mean().item()
    results["ours, world off"]["tokens_as_transformers"] = same
    return results


def table(results: dict[str, dict[str, dict[str, object]]]) -> str:
    """Markdown; factors are against transformers at the same batch size, above 1 is slower."""
    lines = [
        "| model | batch | prompt tokens | prefill ms | tokens/s | × | decode ms a token | tokens/s | × |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rows in results.values():
        own = rows["transformers"]
        for name, row in rows.items():
            cells = [name, f"{row['batch']}", f"{row['prompt_tokens']:,}"]
            for part in ("prefill", "decode"):
                key = "prefill_seconds" if part == "prefill" else "decode_seconds_per_token"
                cells += [
                    f"{1000 * row[key]:.1f}",
                    f"{row[f'{part}_tokens_per_second']:,.0f}",
                    f"{row[key] / own[key]:.2f}",
                ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--text", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--backend", choices=["sdpa", "flex", "flash", "flash4"], default="sdpa", help="of our prefill")
    arguments = parser.parse_args()
    size = "tiny" if arguments.tiny else "true"
    model = TheWorld.from_pretrained(TINY_BASE, dtype=torch.float32, world_image_size=64) if arguments.tiny else None
    model = (model or random_model(enable_world=True)).eval()
    model.attention_backend = arguments.backend
    models = {"ours": model, "ours, world off": without_world(model), "transformers": transformers_own(model)}
    results = {}
    for batch in arguments.batches:
        text = arguments.text or TEXT[size]
        with_world = prompts(model, batch=batch, text=text, world=True)
        plain = prompts(model, batch=batch, text=text, world=False)
        inputs = {name: with_world if name == "ours" else plain for name in models}
        results[f"batch {batch}"] = measure(models, inputs, tokens=arguments.tokens, repeats=arguments.repeats)
        print(f"batch {batch}: {results[f'batch {batch}']}", flush=True)
    about = {
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "backend": arguments.backend,
        "new_tokens": arguments.tokens,
        "repeats": arguments.repeats,
    }
    arguments.output.write_text(json.dumps(about | results, indent=1) + "\n")
    arguments.output.with_suffix(".md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()

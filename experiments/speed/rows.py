"""Model and row that the scripts here measure: random weights at true dimensions, two samples of 5076 tokens."""

from __future__ import annotations

from dataclasses import replace

import torch

from theworld.data.packing.collator import pack, pad
from theworld.models.configuration import TheWorldConfig
from theworld.models.image_features import image_features
from theworld.models.theworld import TheWorld
from theworld.types import IGNORE_INDEX, Batch, Sample

TARGETS = 360
TEXT = {True: 721, False: 468}
"""Text tokens of a sample, with the world branch (5076 tokens together) and without it (725)."""

WORLD_IDS = {"start_of_world_token_id": 6, "world_token_id": 7, "end_of_world_token_id": 8}


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
    return model.train()


def samples_of(model: TheWorld, *, text: int, targets: int, seed: int = 0, count: int = 2) -> list[Sample]:
    """Samples [BOS][SOW] world [EOW] 20 text, image, text, without the world part if the model has none."""
    config, samples = model.config, []
    vision, generator = config.gemma_config.vision_config, torch.Generator().manual_seed(seed)
    high = min(200_000, config.get_text_config().vocab_size)
    image = torch.full((config.gemma_config.mm_tokens_per_image,), config.gemma_config.image_token_id)
    for number in range(count):
        words = torch.randint(100, high, (text,), generator=generator)
        parts = [torch.tensor([2]), words[:20], image, words[20:]]
        frames = torch.empty(0, 3, 8, 8)
        if config.enable_world:
            world = torch.full((config.num_world_tokens,), config.world_token_id)
            edges = torch.tensor([[config.start_of_world_token_id], [config.end_of_world_token_id]])
            parts[1:1] = [edges[0], world, edges[1]]
            frames = torch.rand(1, 3, *[config.world_image_size] * 2, generator=generator) * 2 - 1
        input_ids = torch.cat(parts)
        kept = torch.arange(len(input_ids)) >= len(input_ids) - targets
        samples.append(
            Sample(
                id=f"{seed}-{number}",
                input_ids=input_ids,
                labels=torch.where(kept, input_ids, IGNORE_INDEX),
                token_type_ids=model.token_types(input_ids[None].to(model.device))[0].cpu(),
                pixel_values=torch.randn(1, 3, vision.image_size, vision.image_size, generator=generator),
                world_pixel_values=frames,
            )
        )
    return samples


def packed_row(model: TheWorld, samples: list[Sample], *, cached: bool = False) -> Batch:
    """The samples as the data pipeline gives them to the module: one row on the CPU, page-locked beside a GPU."""
    budget = sum(len(sample.input_ids) for sample in samples)
    targets = sum(int((sample.labels != IGNORE_INDEX).sum()) for sample in samples)
    batch = pack(samples, budget=budget, pad_token_id=0, step_target_tokens=targets)
    if cached:
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16):
            features = image_features(model.gemma, batch.pixel_values.to(model.device)).cpu()
            latents = model.cosmos_encoder.vae(batch.world_pixel_values.to(model.device)).contiguous().cpu()
        batch = replace(
            batch,
            image_features=features,
            world_latents=latents,
            pixel_values=batch.pixel_values[:0],
            world_pixel_values=batch.world_pixel_values[:0],
        )
    return batch.pin_memory() if model.device.type == "cuda" else batch


def padded_rows(samples: list[Sample], device: torch.device) -> Batch:
    """The same samples as rows of their own, on the device: what the baselines train on."""
    batch = pad(samples, pad_token_id=0, side="right").to(device)
    return replace(batch, pixel_values=batch.pixel_values.bfloat16())

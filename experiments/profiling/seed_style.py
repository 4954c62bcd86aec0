"""A training step as the seed made it, with a place for everything it does.

Hugging Face's modules, SDPA with a mask tensor, a KV cache that nobody reads, float32 logits of every row, foreach
AdamW on bfloat16 weights, the world encoder in three dimensions.
"""

from __future__ import annotations

from pathlib import Path

import torch
from baselines import as_published
from rows import padded_rows
from torch.nn import functional as F

from theworld.models.execution import set_execution
from theworld.models.flops import geometry_of, useful_flops
from theworld.models.theworld import TheWorld
from theworld.profiling.places import GLUE, HEAD, Place
from theworld.profiling.reports.make import make_report, parameter_counts, throughput
from theworld.profiling.reports.schema import Report
from theworld.profiling.timing.segments import mean_seconds
from theworld.profiling.watch import Plan, Watch
from theworld.training.callbacks.throughput import Counts
from theworld.training.optimizer_rules import set_trainable
from theworld.types import Batch, Sample

FORWARD, LOSS = Place("forward", GLUE), Place("forward", HEAD)
BACKWARD, OPTIMIZER = Place("backward", HEAD), Place("optimizer", "step")

RATE = 1e-4
"""Learning rate, ours as well, so that the losses can be compared."""


def profile_seed(model: TheWorld, samples: list[Sample], trained: set[str], plan: Plan, folder: Path) -> Report:
    """Profile it.

    Args:
        model: Changed; on its device.
        samples: A row each, padded to the longest.
        trained: Groups of parameters that train.
        plan: What is measured when.
        folder: For its traces.
    """
    set_trainable(model, trained)
    set_execution(model, compiled=False, recompute="none")
    model.attention_backend = "sdpa"
    as_published(model, True)
    batch = padded_rows(samples, model.device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, foreach=True)
    watch = Watch(model, model.device, plan, folder)
    losses = []
    for _ in range(plan.total):
        watch.begin_step(optimizer, batch)
        losses.append(seed_step(model, batch, optimizer, watch))
    found = watch.finish()
    geometry = geometry_of(batch)
    counts = Counts(
        steps=1,
        tokens=sum(geometry.document_lengths),
        capacity=batch.document_ids.numel(),
        targets=geometry.targets,
        samples=len(samples),
        flops=useful_flops(model.config, geometry, trained).total,
    )
    return make_report(
        found,
        name=folder.name,
        parameters=parameter_counts(model),
        run={"what": "as the seed", "trains": sorted(trained), "rows": len(samples), "tokens": counts.tokens},
        throughput=throughput(counts, mean_seconds(found.plain), model.device),
        losses=[loss.item() for loss in losses],
    )


def seed_step(model: TheWorld, batch: Batch, optimizer: torch.optim.Optimizer, watch: Watch) -> torch.Tensor:
    """One step; the loss before it."""
    inputs = {
        "token_type_ids": batch.token_type_ids,
        "document_ids": batch.document_ids,
        "pixel_values": batch.pixel_values,
        "world_pixel_values": batch.world_pixel_values,
    }
    with watch.places.within(FORWARD):
        logits = model(batch.input_ids, **inputs, use_cache=True).logits.float()
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten())
    with watch.places.within(BACKWARD):
        loss.backward()
    watch.look(optimizer)
    with watch.places.within(OPTIMIZER):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.detach()

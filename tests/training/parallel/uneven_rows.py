"""One pass on a rank whose row may lack the image or the world frame that the other rank's row has."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh

from tests.tiny import (
    BOI,
    BOS,
    EOI,
    EOW,
    IMAGE,
    IMAGE_SIDE,
    IMAGE_TOKENS,
    SOW,
    WORLD,
    WORLD_SIDE,
    WORLD_TOKENS,
    make_model,
)
from theworld.models.theworld import TheWorld
from theworld.training.parallel.clipping import clip_by_norm
from theworld.training.parallel.sharding import shard_model, whole

MAX_NORM = 0.25


def row_of(rank: int) -> dict[str, Tensor]:
    """The first row has a frame and an image, the second is text alone."""
    generator = torch.Generator().manual_seed(rank)
    words = torch.randint(20, 60, (12,), generator=generator).tolist()
    seen = [SOW, *[WORLD] * WORLD_TOKENS, EOW, BOI, *[IMAGE] * IMAGE_TOKENS, EOI] if rank == 0 else []
    ids = torch.tensor([[BOS, *seen, *words]])
    labels = torch.where(torch.arange(ids.shape[1]) >= ids.shape[1] - 6, ids, -100)
    row = {"input_ids": ids, "labels": labels}
    if rank == 0:
        row["pixel_values"] = torch.randn(1, 3, IMAGE_SIDE, IMAGE_SIDE, generator=generator).double()
        row["world_pixel_values"] = torch.rand(1, 3, WORLD_SIDE, WORLD_SIDE, generator=generator).double()
    return row


def model() -> TheWorld:
    """In double precision; the world encoder is frozen, as no stage trains it."""
    made = make_model().train()
    for name, parameter in made.named_parameters():
        parameter.data = parameter.data.double()
        parameter.requires_grad_(".vae." not in name)
    return made


def pass_once(*, world_size: int, folder: Path) -> None:
    """Writes this rank's view of the summed, then of the clipped gradient, and of the norm."""
    torch.Tensor.float = torch.Tensor.double  # this process is ours alone
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    mine = model()
    mesh = init_device_mesh("cpu", (world_size,))
    shard_model(mine, mesh, divided=("world_projector", "vision", "language"), bfloat16=False)
    (mine(**row_of(rank)).loss_sum * world_size).backward()
    norm = clip_by_norm(mine.parameters(), MAX_NORM)
    gradients = {n: whole(p.grad) for n, p in mine.named_parameters() if p.grad is not None}
    torch.save({"norm": norm, "gradients": gradients}, folder / f"rank-{rank}.pt")
    distributed.destroy_process_group()

"""A process that does nothing but save, to be killed in the middle of it; for `tests.training.ranks`."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from theworld.training.checkpoints.directory import remove_checkpoint
from theworld.training.checkpoints.newest import link_checkpoint, name_latest, newest_checkpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories


def save_forever(*, world_size: int, folder: Path, begin: int) -> None:
    """Save 4 MB of `begin`, `begin + 1`, ...; odd ones under one name, and write down what is saved.

    Args:
        world_size: Not used; every rank is told it.
        folder: Where the checkpoints lie, and beside it `saved.txt`.
        begin: The first number.
    """
    del world_size
    plugin = CheckpointDirectories()
    ledger = os.open(folder.parent / "saved.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    number = begin
    while True:
        path = folder / ("same.ckpt" if number % 2 else f"step={number}.ckpt")
        plugin.save_checkpoint({"number": number, "weight": torch.full((1_000_000,), float(number))}, path)
        os.write(ledger, f"{number}\n".encode())
        name_latest(path)
        link_checkpoint(folder / "last.ckpt", path)
        remove_checkpoint(folder / f"step={number - 4}.ckpt")
        number += 1


def newest_number(folder: Path) -> tuple[int, list[str]]:
    """The number in the newest checkpoint, all of whose weights must be that number, and what was skipped."""
    path, skipped = newest_checkpoint(folder)
    assert path is not None
    found = CheckpointDirectories().load_checkpoint(path)
    assert torch.equal(found["weight"], torch.full((1_000_000,), float(found["number"])))
    return found["number"], skipped

"""The processes that make one cache together: torchrun's, or this one alone. Shards are dealt out by their numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class Crew:
    """Which of how many this process is.

    Attributes:
        rank: From 0; the first one keeps the books.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    @contextmanager
    def of_torchrun(cls) -> Iterator[Crew]:
        """As the environment says; several processes are joined over gloo meanwhile."""
        rank, size = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
        if size > 1:
            distributed.init_process_group("gloo")
        try:
            yield cls(rank, size)
        finally:
            if size > 1:
                distributed.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes what belongs to all."""
        return self.rank == 0

    def makes(self, number: int) -> bool:
        """Whether this process makes the shard of that number; it does not depend on what is there already."""
        return number % self.size == self.rank

    def wait(self) -> None:
        """Until all processes are here. One that died ends the others with an error of gloo's."""
        if self.size > 1:
            distributed.barrier()

    def device(self, chosen: str | None) -> torch.device:
        """As chosen; else this process's own GPU on this machine, else the CPU."""
        if chosen == "cuda" or (chosen is None and torch.cuda.is_available()):
            return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if self.size > 1 else torch.device("cuda")
        return torch.device(chosen or "cpu")


ALONE = Crew()

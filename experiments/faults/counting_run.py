"""A training run whose weights say which step they are of: it does nothing but save, through the real callback.

Every weight begins at 0 and every step adds 1, so a checkpoint that mixes two saves shows.
"""

from __future__ import annotations

import logging
import os
import signal
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tests.tiny import QUIET_TRAINER
from tests.training.checkpoints.faults import fail_once
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.checkpoints.newest import newest_checkpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories

TENSORS, NUMBERS = 4, 500_000
"""8 MB of weights."""
LEDGER = "steps.txt"


class Counter(LightningModule):
    """Its gradient is -1 everywhere and its learning rate 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList(torch.zeros(NUMBERS) for _ in range(TENSORS))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return -torch.stack([weight.sum() for weight in self.weights]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Ledger(Callback):
    """Appends the number of each step that is made, before it is saved."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        os.write(self.file, f"{trainer.global_step}\n".encode())


def count(
    *,
    world_size: int,
    folder: Path,
    async_save: bool,
    saved_every: int,
    scratch: Path | None = None,
    die_at: tuple[str, int] | None = None,
    steps: int = 1_000_000,
) -> None:
    """Go on from the newest checkpoint in `folder / "saved"` until killed.

    Args:
        world_size: Not used; every rank is told it.
        folder: Of the checkpoints and of the ledger.
        async_save: Of the callback.
        saved_every: Steps between saves.
        scratch: TMPDIR of the process.
        die_at: Kind and number of the call at which the process kills itself; see `tests.training.checkpoints.faults`.
        steps: Where the run ends if nobody kills it.
    """
    del world_size
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if scratch is not None:
        os.environ["TMPDIR"] = str(scratch)
    saver = CrashSafeCheckpoint(
        folder / "saved",
        filename="{step}",
        every_n_train_steps=saved_every,
        save_last="link",
        async_save=async_save,
        enable_version_counter=False,
    )
    settings = QUIET_TRAINER | {"max_steps": steps, "enable_checkpointing": True, "default_root_dir": folder}
    trainer = Trainer(**settings, callbacks=[Ledger(folder / LEDGER), saver], plugins=[CheckpointDirectories()])
    rows = torch.utils.data.DataLoader(torch.zeros(1_000_000, 1))
    if die_at is not None:
        fail_once(pytest.MonkeyPatch(), *die_at, _die)
    last = "last" if (folder / "saved").is_dir() and newest_checkpoint(folder / "saved")[0] else None
    trainer.fit(Counter(), rows, ckpt_path=last)


def last_step(folder: Path) -> int:
    """The last step that the ledger knows."""
    path = folder / LEDGER
    return int(path.read_text().split()[-1]) if path.exists() else 0


def steps_made(folder: Path) -> int:
    """How many steps the ledger knows, those made twice counted twice."""
    path = folder / LEDGER
    return path.read_text().count("\n") if path.exists() else 0


def loaded(folder: Path) -> tuple[int, bool, int]:
    """Step of the newest checkpoint that verifies, whether all its weights are of that step, and how many were skipped.

    (0, True, 0) if there is none.
    """
    path, skipped = newest_checkpoint(folder / "saved")
    if path is None:
        return 0, True, len(skipped)
    content = CheckpointDirectories().load_checkpoint(path)
    step = int(content["global_step"])
    whole = all(torch.equal(w, torch.full_like(w, float(step))) for w in content["state_dict"].values())
    return step, whole and len(content["state_dict"]) == TENSORS, len(skipped)


def _die() -> BaseException:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")

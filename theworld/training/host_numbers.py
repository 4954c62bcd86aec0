"""Logging of numbers that the host knows, without the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer


def log_numbers(trainer: Trainer, numbers: Mapping[str, float]) -> None:
    """Hand `numbers` to the loggers and to `trainer.callback_metrics`, in a hook of training.

    `LightningModule.log` sends each number to the device, where the host waits for all work given so far, and reads it
    back to write it. Call this only in steps that are logged (`is_logged`); nothing here decides it.
    """
    trainer.callback_metrics.update({name: torch.tensor(number) for name, number in numbers.items()})
    for logger in trainer.loggers:
        logger.log_metrics(dict(numbers), step=trainer.fit_loop.epoch_loop._batches_that_stepped)


def is_logged(trainer: Trainer, step: int) -> bool:
    """Whether Lightning logs after `step` optimizer steps are made."""
    return trainer.log_every_n_steps > 0 and step % trainer.log_every_n_steps == 0

"""Loads the base: every process its own, unless the strategy knows better."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Protocol, runtime_checkable

import torch

from theworld.models.low_bit import quantise_language
from theworld.models.theworld import TheWorld


@runtime_checkable
class LoadsModel(Protocol):
    """A strategy that decides which process reads the base, and gives a model to be filled in its `setup`."""

    def load_model(self, load: Callable[[], TheWorld]) -> TheWorld:
        """The model, by `load` or without it."""


def load_base(strategy: object, load: Callable[[], TheWorld], *, low_bit: bool) -> TheWorld:
    """The model for this process.

    Args:
        strategy: The trainer's.
        load: Reads the base from disk.
        low_bit: Round the language model's matrices to 8 bits. A strategy that loads by itself refuses that.
    """
    if isinstance(strategy, LoadsModel):
        return strategy.load_model(load)
    # On a card that a low-bit base is for, the whole base would not fit: it is loaded and rounded beside it.
    with torch.device("cpu") if low_bit else nullcontext():
        model = load()
        if low_bit:
            quantise_language(model)
    return model

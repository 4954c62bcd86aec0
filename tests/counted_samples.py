"""Samples made of numbers alone: their lengths, targets, images and shards are what the test says, and cost nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from types import SimpleNamespace

import numpy as np
import torch

from theworld.types import IGNORE_INDEX, Sample

PROCESSOR = SimpleNamespace(pad_token_id=0, fixed_tokens=1, tokenizer=SimpleNamespace(get_vocab=lambda: {"a": 0}))


class CountedSamples:
    """Sample `i` is `lengths[i]` times the token `i + 1`; the last `targets[i]` of them are targets."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        targets: Sequence[int] | None = None,
        images: Sequence[int] | None = None,
        groups: Sequence[int] | None = None,
        name: str = "counted",
        unreadable: Collection[int] = (),
        processor: object = PROCESSOR,
    ):
        self.lengths = np.array(lengths, dtype=np.int64)
        self.targets = np.ones_like(self.lengths) if targets is None else np.array(targets, dtype=np.int64)
        self.num_images = np.ones_like(self.lengths) if images is None else np.array(images, dtype=np.int64)
        self.groups = None if groups is None else np.array(groups, dtype=np.int64)
        self.index = SimpleNamespace(name=name, sha256=hashlib.sha256(self.lengths.tobytes()).hexdigest())
        self.processor = processor
        self.unreadable = set(unreadable)
        self.features: dict[str, object] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def id(self, number: int) -> str:
        return f"{number}"

    def read(self, number: int, *, cached: Collection[str] = ()) -> Sample:
        if number in self.unreadable:
            raise OSError(f"{self.id(number)}: gone")
        length, targets = int(self.lengths[number]), int(self.targets[number])
        input_ids = torch.full((length,), number + 1)
        return Sample(
            id=self.id(number),
            input_ids=input_ids,
            labels=torch.where(torch.arange(length) < length - targets, IGNORE_INDEX, input_ids),
            token_type_ids=torch.zeros_like(input_ids),
            pixel_values=torch.zeros(int(self.num_images[number]), 3, 2, 2),
            world_pixel_values=torch.zeros(0, 3, 2, 2),
        )

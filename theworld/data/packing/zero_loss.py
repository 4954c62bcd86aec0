"""What takes the place of a sample that cannot be read when its turn comes: one as long, that carries no loss.

Rows, steps and ranks stay as planned; only the targets of the lost sample leave the step's denominator, which
`theworld.training.callbacks.quarantine` sees to.

T tokens · I images · W world frames
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from theworld.data.processor import TheWorldProcessor
from theworld.types import FEATURES, IGNORE_INDEX, Sample, TokenType


def zero_loss_sample(
    processor: TheWorldProcessor, *, id: str, length: int, images: int, cached: Mapping[str, Tensor] | None = None
) -> Sample:
    """A sample of `length` tokens without targets; its image and its world frame, or their features, are zeros.

    It has the placeholders of a real one, so that every rank runs the vision tower and the world encoder as planned.

    Args:
        processor: Knows placeholders and shapes.
        id: Name of the sample it stands for.
        length: Tokens of that sample, T.
        images: Images of that sample; without any it is text alone.
        cached: What the other samples of its row have in place of pixels: one entry of zeros, by field of `Sample`.
    """
    prompt = processor.encode_prompt([("", "")], Image.new("RGB", (8, 8)), id)
    shown = prompt.input_ids if images else prompt.input_ids[:0]
    assert len(shown) <= length, f"{id}: {length} tokens cannot hold the {len(shown)} of an empty question"
    filling = torch.full((length - len(shown),), processor.pad_token_id)
    input_ids = torch.cat([shown, filling])  # (T,)
    types = prompt.token_type_ids[: len(shown)]
    count = 1 if images else 0
    sample = Sample(
        id=id,
        input_ids=input_ids,
        labels=torch.full_like(input_ids, IGNORE_INDEX),
        token_type_ids=torch.cat([types, torch.full_like(filling, TokenType.TEXT)]),  # (T,)
        pixel_values=torch.zeros_like(prompt.pixel_values[:count]),  # (I, 3, H, W)
        world_pixel_values=torch.zeros_like(prompt.world_pixel_values[:count]),  # (W, 3, h, w)
    )
    for feature, zeros in (cached or {}).items():
        pixels = getattr(sample, FEATURES[feature])
        sample = replace(sample, **{feature: zeros.expand(count, *zeros.shape), FEATURES[feature]: pixels[:0]})
    return sample

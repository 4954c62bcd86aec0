"""Bytes of an image to float32 by looking them up, which is exact whatever the arithmetic behind the table is.

Shape legend: `H`, `W` height and width of the image.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


class ByteTable:
    """Gives every byte of an RGB image the value that its channel's table holds for it.

    Two neighbouring bytes are looked up at once, in a table of 65,536 pairs: half the look-ups, the same values.

    Args:
        values: float32[3, 256], the value of each byte in each channel.
    """

    def __init__(self, values: NDArray[np.float32]):
        if values.shape != (3, 256) or values.dtype != np.float32:
            raise ValueError(f"found {values.dtype}{list(values.shape)}, expected float32[3, 256].")
        bytes_of_pair = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
        self._values = values
        self._pairs = [np.ascontiguousarray(channel[bytes_of_pair]).view(np.int64) for channel in values]

    def __call__(self, image: Image.Image) -> Tensor:
        """The values of an image.

        Args:
            image: RGB.

        Returns:
            float32[3, H, W].
        """
        if image.mode != "RGB":
            raise ValueError(f"found an image of mode {image.mode!r}, expected RGB; convert it.")
        size = image.width * image.height
        paired = size - size % 2
        made = torch.empty(3, image.height, image.width)
        out = made.view(3, size).numpy()
        for channel, band in enumerate(image.split()):
            found = np.asarray(band).reshape(-1)
            pairs, into = found[:paired].view(np.uint16), out[channel, :paired].view(np.int64)
            np.take(self._pairs[channel], pairs, out=into, mode="clip")
            out[channel, paired:] = self._values[channel, found[paired:]]
        return made  # (3, H, W)

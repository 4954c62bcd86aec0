"""What Gemma 3's image processor makes of an image, bit for bit, in a quarter of its time.

After the resize, each value depends on one byte alone; so the image processor is asked once for all 256 of them.

Shape legend: `H`, `W` the vision tower's input.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import Gemma3ImageProcessorPil

from theworld.data.pictures.byte_table import ByteTable


class VisionPixels:
    """The vision tower's input.

    Args:
        image_processor: Its size, resampling and normalisation are what is done; pan-and-scan is not.

    Raises:
        ValueError: The image processor does not resize to a fixed height and width.
    """

    def __init__(self, image_processor: Gemma3ImageProcessorPil):
        size = image_processor.size
        if not image_processor.do_resize or not size.height or not size.width:
            raise ValueError(
                f"the image processor has do_resize={image_processor.do_resize} and size {size}, expected a fixed "
                "height and width, as Gemma 3's has; correct preprocessor_config.json."
            )
        self._size = int(size.width), int(size.height)
        self._resample = Image.Resampling(image_processor.resample)
        grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
        every_byte = Image.fromarray(np.stack([grey] * 3, axis=-1))
        made = image_processor(images=[every_byte], do_resize=False, do_pan_and_scan=False, return_tensors="np")
        self._values = ByteTable(made["pixel_values"][0].reshape(3, 256).astype(np.float32))

    def __call__(self, image: Image.Image | None) -> Tensor:
        """The input made of one image, or of none.

        Args:
            image: RGB, of any size.

        Returns:
            float32[I, 3, H, W], normalised; `I` is 1, or 0 without an image.
        """
        if image is None:
            return torch.empty(0, 3, self._size[1], self._size[0])
        return self._values(image.resize(self._size, self._resample))[None]  # (1, 3, H, W)

"""Hash of all that happens between an image file and a tower's pixels, found by doing it to a fixed picture.

Decoding, drawing, resizing and normalising depend on settings, on our code and on Pillow; whatever of these changes an
entry's pixels changes the picture's, too.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

from theworld.data.pictures.drawing import Box, Region, RegionStyle, draw_regions
from theworld.data.pictures.images import load_image
from theworld.data.pictures.masks import Rle
from theworld.data.processor import TheWorldProcessor

_WIDTH, _HEIGHT = 640, 480
_BOXES: tuple[Box, ...] = ((20, 30, 300, 200), (280, 150, 620, 460), (310.5, 10.25, 340, 40), (0, 400, 90, 480))


def preprocessing_sha256(processor: TheWorldProcessor, feature: str, *, region_style: RegionStyle) -> str:
    """Hash of the pixels that a tower sees of the fixed picture.

    Args:
        processor: Makes pixels.
        feature: `image_features` or `world_latents`.
        region_style: How regions are drawn.
    """
    image = draw_regions(load_image(_photo(), "the fixed picture"), _regions(), style=region_style)
    pixels = processor.pixels(image) if feature == "image_features" else processor.world_pixels(image)
    digest = hashlib.sha256(repr((pixels.dtype, tuple(pixels.shape))).encode())
    digest.update(pixels.numpy().data)
    return digest.hexdigest()


def _photo() -> bytes:
    """A JPEG with edges, gradients and texture."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    planes = [(x * 3 + y * 2) // 8 % 256, (x * y) // 300 % 256, np.where((x // 40 + y // 40) % 2, 220, 40)]
    file = io.BytesIO()
    Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _regions() -> list[Region]:
    half = _WIDTH * _HEIGHT // 2
    rles = [Rle(size=[_HEIGHT, _WIDTH], counts=[half - 5000 * n, 4000 * n, half + 1000 * n]) for n in range(1, 5)]
    return [Region(number, box, rle, 0) for number, (box, rle) in enumerate(zip(_BOXES, rles, strict=True))]

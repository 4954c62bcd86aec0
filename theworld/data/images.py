"""Reading images from disk, safely, and preparing the world encoder's input.

Shape legend: `h`, `w` height and width of the world encoder's input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 40_000_000
"""Largest image that is decoded: a 160 kB PNG can hold 13000 x 13000 pixels and take 0.8 GB of memory."""

FORMATS = ("JPEG", "PNG", "WEBP")

_ORIENTATION = 0x0112
_TRANSPOSED = {5, 6, 7, 8}
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}


def load_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one image as RGB, turned upright by its EXIF orientation.

    Args:
        path: A JPEG, PNG or WebP file; other formats are refused, whatever the suffix says.
        max_pixels: Largest number of pixels; checked from the header, before anything is decoded.

    Raises:
        ValueError: The file is no image of these formats, too large, truncated, or of more than 8 bits a channel.
    """
    with _opened(path, max_pixels) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def image_size(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) that `load_image` will give, read from the header alone.

    Raises:
        ValueError: As in `load_image`, as far as the header tells.
    """
    with _opened(path, max_pixels) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(_ORIENTATION) in _TRANSPOSED else (width, height)


def world_pixels(image: Image.Image, size: int) -> Tensor:
    """What the world encoder sees: the whole image squashed to a square.

    Args:
        image: RGB image of any size.
        size: Side of the square, in pixels.

    Returns:
        float32[3, size, size] in [-1, 1]; bicubic, antialiased when shrinking.
    """
    resized = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized, dtype=np.uint8)).permute(2, 0, 1)  # (3, size, size)
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1.0)


@contextmanager
def _opened(path: str | Path, max_pixels: int) -> Iterator[Image.Image]:
    """An open image whose header was checked; every failure becomes a ValueError that names the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_header(image, path, max_pixels)
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: not a readable {'/'.join(FORMATS)} image; replace the file.") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: refused as a decompression bomb ({error}); replace the file.") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: cannot be decoded ({error}); the file is missing or damaged, replace it.") from error


def _check_header(image: Image.Image, path: str | Path, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(
            f"{path}: found {width} x {height} = {width * height} pixels, expected at most {max_pixels}; "
            "shrink the image or raise max_pixels."
        )
    if image.mode not in _MODES:
        raise ValueError(f"{path}: found mode {image.mode!r}, expected 8 bits a channel; convert the image to RGB.")

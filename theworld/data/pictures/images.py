"""Decoding images safely, and preparing the world encoder's input.

What is accepted: JPEG, PNG and WebP by content (a wrong suffix does not matter), CMYK, grey, palette and transparency
(converted to RGB), EXIF rotation (turned upright), animations (their first frame). What is refused: other formats,
16-bit grey, damaged files, and more pixels or bytes than the limits, before anything of that size is allocated.

Shape legend: `h`, `w` height and width of the world encoder's input.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from theworld.data.pictures.byte_table import ByteTable
from theworld.data.rows.faults import TOO_LARGE, UNREADABLE_IMAGE, RowError

MAX_PIXELS = 40_000_000
"""Largest image that is decoded: a 160 kB PNG can hold 13000 x 13000 pixels and take 0.8 GB of memory."""

MAX_IMAGE_BYTES = 128 << 20
"""Largest encoded image that is read."""

FORMATS = ("JPEG", "PNG", "WEBP")

_WORLD_VALUES = ByteTable(np.tile(np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1), (3, 1)))
"""[-1, 1] of a byte."""

_ORIENTATION = 0x0112
_TRANSPOSED = {5, 6, 7, 8}
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}


def load_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one image as RGB, turned upright by its EXIF orientation.

    Args:
        data: A JPEG, PNG or WebP file; other formats are refused, whatever the suffix says.
        name: Its file name, for messages.
        max_pixels: Largest number of pixels; checked from the header, before anything is decoded.

    Raises:
        RowError: The bytes are no image of these formats, too large, truncated, or of more than 8 bits a channel.
    """
    with _opened(data, name, max_pixels) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image if image.mode == "RGB" else image.convert("RGB")  # `convert` would copy an RGB image


def check_image(data: bytes, name: str, *, decode: bool, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) that `load_image` will give.

    Args:
        data: The encoded image.
        name: Its file name, for messages.
        decode: Read all of it, to find damage behind the header; a JPEG at an eighth of its size, which reads every
            byte but takes less time. (Of a PNG all is read in any case: its orientation may come last.)
        max_pixels: As in `load_image`.

    Raises:
        RowError: As in `load_image`, as far as was read.
    """
    with _opened(data, name, max_pixels) as image:
        width, height = image.size
        is_transposed = image.getexif().get(_ORIENTATION) in _TRANSPOSED
        if decode:
            image.draft(None, (width // 8, height // 8))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # as `load_image` does: it fails on some damaged EXIF
        return (height, width) if is_transposed else (width, height)


def world_pixels(image: Image.Image, size: int) -> Tensor:
    """What the world encoder sees: the whole image squashed to a square.

    Args:
        image: RGB image of any size.
        size: Side of the square, in pixels.

    Returns:
        float32[3, size, size] in [-1, 1]; bicubic, antialiased when shrinking.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return _WORLD_VALUES(rgb.resize((size, size), Image.Resampling.BICUBIC))


@contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """An open image whose header was checked; every failure becomes a RowError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_header's limit is lower
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
        with opened as image:
            _check_header(image, name, max_pixels)
            yield image
    except UnidentifiedImageError as error:
        raise RowError(
            UNREADABLE_IMAGE, f"{name}: not a readable {'/'.join(FORMATS)} image; replace the file."
        ) from error
    except Image.DecompressionBombError as error:
        raise RowError(TOO_LARGE, f"{name}: refused as a decompression bomb ({error}); replace the file.") from error
    except (RowError, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever a damaged file makes it stumble over, down to ZeroDivisionError
        raise RowError(
            UNREADABLE_IMAGE, f"{name}: cannot be decoded ({error}); the file is damaged, replace it."
        ) from error


def _check_header(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise RowError(
            TOO_LARGE,
            f"{name}: found {width} x {height} = {width * height} pixels, expected at most {max_pixels}; "
            "shrink the image or raise max_pixels.",
        )
    if image.mode not in _MODES:
        raise RowError(
            UNREADABLE_IMAGE, f"{name}: found mode {image.mode!r}, expected 8 bits a channel; convert the image to RGB."
        )

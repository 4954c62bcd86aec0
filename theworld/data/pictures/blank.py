"""A picture that shows nothing, for controls in which one of the two towers must learn nothing from the image.

It is a plain colour near grey that comes from a checksum of the image. So it says nothing of what the image shows, and
is yet another one for every image: exchanging it between samples is a real exchange, and the same input in all samples
stays the sign of a fault that it is without controls.
"""

from __future__ import annotations

import warnings
import zlib
from typing import Literal, get_args

from PIL import Image

BlankImage = Literal["none", "vision", "world"]
"""Whose picture is blank."""

GREY = (128, 128, 128)
"""The middle of the range: what SigLIP's image processor takes for its mean, and next to 0 for the world encoder."""

SPREAD = 32
"""How far a blank picture's red, green and blue lie from grey; wider ones distract a model that learns beside them."""


def blank_picture(image: Image.Image) -> Image.Image:
    """A plain picture of the same size, of a colour that only depends on the image's bytes."""
    checksum = zlib.crc32(image.tobytes()).to_bytes(4, "big")
    red, green, blue = (middle - SPREAD + byte % (2 * SPREAD) for middle, byte in zip(GREY, checksum[1:], strict=True))
    return Image.new("RGB", image.size, (red, green, blue))


def check_blank(blank_image: str) -> None:
    """Refuse an unknown choice, and warn of any but `none`: a model trained so is good for a control only."""
    if blank_image not in get_args(BlankImage):
        raise ValueError(f"found blank_image={blank_image!r}, expected one of {get_args(BlankImage)}")
    if blank_image != "none":
        warnings.warn(
            f"blank_image={blank_image!r}: in place of every picture the {blank_image} tower sees a plain colour. This "
            "is a control of the audit; leave data.blank_image out for anything else",
            stacklevel=3,
        )

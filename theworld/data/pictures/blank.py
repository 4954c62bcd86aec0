"""A picture that shows nothing, for controls in which one of the two towers must learn nothing from the image."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

from PIL import Image

BlankImage = Literal["none", "vision", "world"]
"""Whose picture is blank."""

GREY = (128, 128, 128)
"""The middle of the range: what SigLIP's image processor takes for its mean, and next to 0 for the world encoder."""


def blank_picture(image: Image.Image) -> Image.Image:
    """A plain grey picture of the same size."""
    return Image.new("RGB", image.size, GREY)


def check_blank(blank_image: str) -> None:
    """Refuse an unknown choice, and warn of any but `none`: a model trained so is good for a control only."""
    if blank_image not in get_args(BlankImage):
        raise ValueError(f"found blank_image={blank_image!r}, expected one of {get_args(BlankImage)}")
    if blank_image != "none":
        warnings.warn(
            f"blank_image={blank_image!r}: every picture is plain grey for the {blank_image} tower. This is a control "
            "of the audit; leave data.blank_image out for anything else",
            stacklevel=3,
        )

"""Painting regions on the picture that the vision tower sees: outline or mask, and a label a reader can make out.

Deterministic: the same image and regions give the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from theworld.data.masks import Rle, decode_rle

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of the image."""

RegionStyle = Literal["box", "mask"]
"""`box` draws outlines; `mask` draws the mask's contour over a light tint, and needs RLE masks."""

PALETTE = (
    (230, 25, 75),  # red
    (0, 114, 255),  # blue
    (255, 225, 25),  # yellow
    (60, 180, 75),  # green
    (245, 130, 48),  # orange
    (240, 50, 230),  # magenta
    (70, 240, 240),  # cyan
    (128, 0, 200),  # violet
    (255, 255, 255),  # white
    (154, 99, 36),  # brown
    (0, 128, 128),  # teal
    (0, 0, 0),  # black
)
"""Colour by region number, taken again from the start after twelve; the label tells repeats apart."""

_TINT = 0.3
_WIDEST_TAG = 0.2
_Rect = tuple[int, int, int, int]


@dataclass(frozen=True)
class Region:
    """One distinct box of an image.

    Attributes:
        index: Its global number: `Region [index]` in every turn and on the picture.
        box: Left, top, right, bottom, in pixels.
        rle: Its mask, when the row has masks.
        first_turn: Number of the first turn that mentions it; a conversation cut before it need not show it.
    """

    index: int
    box: Box
    rle: Rle | None
    first_turn: int


def check_box(box: Box, size: tuple[int, int]) -> _Rect:
    """The box clipped to the image, in whole pixels.

    Args:
        box: Left, top, right, bottom.
        size: (width, height) of the image.

    Returns:
        First and last column and row inside the image: (left, top, right, bottom), last included.

    Raises:
        ValueError: Nothing of the box is inside the image, or it has no area.
    """
    width, height = size
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(width), box[2]), min(float(height), box[3])
    if right - left < 1 or bottom - top < 1:
        raise ValueError(
            f"box {box} covers less than a pixel of its {width} x {height} image, "
            "expected [left, top, right, bottom] in pixels of this image; correct or remove the box."
        )
    x0, y0 = min(int(left), width - 1), min(int(top), height - 1)
    return x0, y0, max(x0, min(round(right), width) - 1), max(y0, min(round(bottom), height) - 1)


def draw_regions(image: Image.Image, regions: Sequence[Region], *, style: RegionStyle = "box") -> Image.Image:
    """A copy of the image with every region outlined and labelled in its own colour.

    Args:
        image: RGB image that the boxes refer to.
        regions: What to draw; later numbers lie on top.
        style: `box` or `mask`.

    Raises:
        ValueError: A box lies outside the image, or `style` is `mask` and a region has none.
    """
    if style not in ("box", "mask"):
        raise ValueError(f"region style is {style!r}, expected 'box' or 'mask'.")
    canvas = image.convert("RGB")
    canvas = canvas.copy() if canvas is image else canvas
    rects = [check_box(region.box, canvas.size) for region in regions]
    line = max(2, round(min(canvas.size) / 150))
    for region, rect in zip(regions, rects, strict=True):
        if style == "mask":
            canvas = _draw_mask(canvas, region, line)
        else:
            _draw_box(canvas, rect, _colour(region.index), line)
    _draw_tags(canvas, regions, rects, line)
    return canvas


def _colour(index: int) -> tuple[int, int, int]:
    return PALETTE[index % len(PALETTE)]


def _contrast(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black on light colours, white on dark ones (ITU-R BT.601 luma)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


def _draw_box(canvas: Image.Image, rect: _Rect, colour: tuple[int, int, int], line: int) -> None:
    """Outline with a one-pixel rim of the opposite brightness, so that it shows on a background of its own colour."""
    draw = ImageDraw.Draw(canvas)
    x0, y0, x1, y1 = rect
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=_contrast(colour), width=1)
    draw.rectangle(rect, outline=colour, width=line)


def _draw_mask(canvas: Image.Image, region: Region, line: int) -> Image.Image:
    if region.rle is None:
        raise ValueError(
            f"Region [{region.index}] has no mask, which region style 'mask' needs; use style 'box' or add `rle`."
        )
    mask = decode_rle(region.rle, canvas.size)
    colour = _colour(region.index)
    inner = mask.copy()
    for _ in range(line):
        inner = _erode(inner)
    outer = ~_erode(~mask)
    pixels = np.array(canvas)
    pixels[mask] = np.round((1 - _TINT) * pixels[mask] + _TINT * np.array(colour)).astype(np.uint8)
    pixels[mask & ~inner] = colour
    pixels[outer & ~mask] = _contrast(colour)
    return Image.fromarray(pixels)


def _erode(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without its outermost pixels (4-neighbours); what lies beyond the image counts as inside."""
    out = mask.copy()
    out[1:] &= mask[:-1]
    out[:-1] &= mask[1:]
    out[:, 1:] &= mask[:, :-1]
    out[:, :-1] &= mask[:, 1:]
    return out


def _draw_tags(canvas: Image.Image, regions: Sequence[Region], rects: Sequence[_Rect], line: int) -> None:
    draw = ImageDraw.Draw(canvas)
    short = min(canvas.size)
    font = _font(max(10, min(28, round(short / 24))))
    pad = max(1, line // 2)
    placed: list[_Rect] = []
    for region, rect in zip(regions, rects, strict=True):
        colour = _colour(region.index)
        text, width, height = _tag_text(draw, region.index, rect, canvas.size, font, pad)
        tag = _place(rect, width, height, canvas.size, rects, placed)
        placed.append(tag)
        draw.rectangle(tag, fill=colour, outline=_contrast(colour) if short >= 256 else None)
        draw.text(
            ((tag[0] + tag[2] + 1) / 2, (tag[1] + tag[3] + 1) / 2),
            text,
            fill=_contrast(colour),
            font=font,
            anchor="mm",
            stroke_width=0.3 if short < 256 else 0,
            stroke_fill=_contrast(colour),
        )


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _tag_text(
    draw: ImageDraw.ImageDraw,
    index: int,
    rect: _Rect,
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    pad: int,
) -> tuple[str, int, int]:
    """The longest label no wider than its box (or a fifth of the image), and the tag's width and height."""
    room = min(size[0], max(rect[2] - rect[0] + 1, int(_WIDEST_TAG * size[0])))
    height = round(draw.textbbox((0, 0), "[0]", font=font, anchor="mm")[3] * 2) + 2 * pad
    for text in (f"Region [{index}]", f"[{index}]", str(index)):
        box = draw.textbbox((0, 0), text, font=font, anchor="lt")
        width = round(box[2] - box[0]) + 2 * pad + 2
        if width <= room:
            break
    return text, min(width, size[0]), min(height, size[1])


def _place(
    rect: _Rect, width: int, height: int, size: tuple[int, int], rects: Sequence[_Rect], placed: Sequence[_Rect]
) -> _Rect:
    """Above the box, below or inside it, left- or right-aligned: where the tag hides least, other tags above all."""
    x0, y0, x1, y1 = rect
    best: _Rect | None = None
    least = 0
    for y in (y0 - height, y1 + 1, y0, y1 + 1 - height):
        for x in (x0, x1 + 1 - width):
            left, top = min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)
            tag = (left, top, left + width - 1, top + height - 1)
            hidden = sum(_overlap(tag, box) for box in rects) + 10 * sum(_overlap(tag, other) for other in placed)
            if best is None or hidden < least:
                best, least = tag, hidden
    assert best is not None
    return best


def _overlap(a: _Rect, b: _Rect) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    return max(0, width) * max(0, height)

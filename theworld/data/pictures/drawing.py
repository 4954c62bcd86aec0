"""Painting regions on the picture that the vision tower sees: outline or mask, and a label a reader can make out.

Deterministic: the same image and regions give the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from theworld.data.pictures.masks import Rle, decode_rle

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of the image."""

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

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
_GRID = 16
_Rect = tuple[int, int, int, int]
_Rects = NDArray[np.int64]


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


OVERHANG = 0.25
"""How far a box may reach out of its image, as a share of the side; what lies outside is cut off."""


def check_box(box: Box, size: tuple[int, int]) -> _Rect:
    """The box clipped to the image, in whole pixels.

    Args:
        box: Left, top, right, bottom.
        size: (width, height) of the image.

    Returns:
        First and last column and row inside the image: (left, top, right, bottom), last included.

    Raises:
        ValueError: Nothing of the box is inside the image, it has no area, or it reaches so far out (`OVERHANG`) that
            it must be in the pixels of another image.
    """
    width, height = size
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(width), box[2]), min(float(height), box[3])
    if right - left < 1 or bottom - top < 1:
        raise ValueError(
            f"box {box} covers less than a pixel of its {width} x {height} image, "
            "expected [left, top, right, bottom] in pixels of this image; correct or remove the box."
        )
    beyond = max(-box[0] / width, -box[1] / height, box[2] / width - 1, box[3] / height - 1)
    if beyond > OVERHANG:
        raise ValueError(
            f"box {box} reaches {beyond:.0%} beyond its {width} x {height} image, expected at most {OVERHANG:.0%}: "
            "it is in the pixels of another size; scale or remove it."
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
    if style == "mask":
        canvas = _draw_masks(canvas, regions, line)
    else:
        for region, rect in zip(regions, rects, strict=True):
            _draw_box(canvas, rect, _colour(region.index), line)
    _draw_tags(canvas, regions, rects, line)
    return canvas


def region_colours(index: int) -> tuple[Colour, Colour]:
    """The colour of `Region [index]`, and black or white, whichever can be read on it."""
    return _colour(index), _contrast(_colour(index))


def _colour(index: int) -> Colour:
    return PALETTE[index % len(PALETTE)]


def _contrast(colour: Colour) -> Colour:
    """Black on light colours, white on dark ones (ITU-R BT.601 luma)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


def _draw_box(canvas: Image.Image, rect: _Rect, colour: Colour, line: int) -> None:
    """Outline with a one-pixel rim of the opposite brightness, so that it shows on a background of its own colour."""
    draw = ImageDraw.Draw(canvas)
    x0, y0, x1, y1 = rect
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=_contrast(colour), width=1)
    draw.rectangle(rect, outline=colour, width=line)


def _draw_masks(canvas: Image.Image, regions: Sequence[Region], line: int) -> Image.Image:
    pixels = np.array(canvas)
    for region in regions:
        if region.rle is None:
            raise ValueError(
                f"Region [{region.index}] has no mask, which region style 'mask' needs; use style 'box' or add `rle`."
            )
        _draw_mask(pixels, decode_rle(region.rle, canvas.size), _colour(region.index), line)
    return Image.fromarray(pixels)


def _draw_mask(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour, line: int) -> None:
    """Tint and outline in place; only what the mask and its rim cover is looked at."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    part = (slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2))
    mask, pixels = mask[part], pixels[part]
    inner = mask
    for _ in range(line):
        inner = _erode(inner)
    rim = ~_erode(~mask) & ~mask
    for channel, (value, contrast) in enumerate(zip(colour, _contrast(colour), strict=True)):
        tinted = np.round((1 - _TINT) * np.arange(256) + _TINT * value).astype(np.uint8)
        plane = pixels[:, :, channel]
        np.copyto(plane, tinted[plane], where=inner)
        np.copyto(plane, value, where=mask & ~inner)
        np.copyto(plane, contrast, where=rim)


def _erode(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without its outermost pixels (4-neighbours); what lies beyond the image counts as inside."""
    out = mask.copy()
    out[1:] &= mask[:-1]
    out[:-1] &= mask[1:]
    out[:, 1:] &= mask[:, :-1]
    out[:, :-1] &= mask[:, 1:]
    return out


def _draw_tags(canvas: Image.Image, regions: Sequence[Region], rects: Sequence[_Rect], line: int) -> None:
    short = min(canvas.size)
    size = max(10, min(28, round(short / 24)), round(short / 32))  # 28 pixels at least once a photo is shrunk to 896
    pad = max(1, line // 2) + (short >= 256)
    boxes = np.array(rects).reshape(-1, 4)
    tags = np.empty_like(boxes)
    for number, (region, rect) in enumerate(zip(regions, rects, strict=True)):
        text, width, height = _tag_text(region.index, rect, canvas.size, size, pad)
        left, top = _place(rect, width, height, canvas.size, boxes, tags[:number])
        tags[number] = left, top, left + width - 1, top + height - 1
        canvas.paste(_tag(text, width, height, size, _colour(region.index), short < 256), (left, top))


@lru_cache(maxsize=1024)
def _tag(text: str, width: int, height: int, size: int, colour: Colour, small: bool) -> Image.Image:
    """The label on its colour, with a rim; in a small image without a rim, but in bolder letters."""
    ink = _contrast(colour)
    tag = Image.new("RGB", (width, height), colour)
    draw = ImageDraw.Draw(tag)
    if not small:
        draw.rectangle((0, 0, width - 1, height - 1), outline=ink)
    stroke = 0.3 if small else 0
    draw.text((width / 2, height / 2), text, fill=ink, font=_font(size), anchor="mm", stroke_width=stroke)
    return tag


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


@lru_cache(maxsize=4096)
def _extent(text: str, size: int, anchor: str) -> tuple[float, float]:
    """Right and bottom of the text, from its anchor, in pixels."""
    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).textbbox((0, 0), text, font=_font(size), anchor=anchor)
    return box[2], box[3]


def _tag_text(index: int, rect: _Rect, image: tuple[int, int], size: int, pad: int) -> tuple[str, int, int]:
    """The longest label no wider than its box (or a fifth of the image), and the tag's width and height."""
    room = min(image[0], max(rect[2] - rect[0] + 1, int(_WIDEST_TAG * image[0])))
    height = round(_extent("[0]", size, "mm")[1] * 2) + 2 * pad
    for text in (f"Region [{index}]", f"[{index}]", str(index)):
        width = round(_extent(text, size, "lt")[0]) + 2 * pad + 2
        if width <= room:
            break
    return text, min(width, image[0]), min(height, image[1])


def _place(rect: _Rect, width: int, height: int, size: tuple[int, int], boxes: _Rects, tags: _Rects) -> tuple[int, int]:
    """Above the box, below or inside it, left- or right-aligned: where the tag hides no other tag, then least of boxes.

    Where all of these hide another tag, it may also lie anywhere in the box or touching it, on a coarse grid.
    """
    x0, y0, x1, y1 = rect
    room = size[0] - width, size[1] - height
    rows, ends = (y0 - height, y1 + 1, y0, y1 + 1 - height), (x0, x1 + 1 - width)
    corner, hides_tag = _least_hiding([(x, y) for y in rows for x in ends], width, height, room, boxes, tags)
    if hides_tag:
        columns = np.linspace(x0 - width, x1 + 1, _GRID, dtype=int).tolist()
        lines = np.linspace(y0 - height, y1 + 1, _GRID, dtype=int).tolist()
        corner, _ = _least_hiding([(x, y) for y in lines for x in columns], width, height, room, boxes, tags)
    return corner


def _least_hiding(
    corners: Sequence[tuple[int, int]], width: int, height: int, room: tuple[int, int], boxes: _Rects, tags: _Rects
) -> tuple[tuple[int, int], bool]:
    """The first of the upper left corners, moved into the image, whose tag hides least; and does it hide a tag?"""
    corner = np.maximum(np.minimum(np.array(corners), room), 0)
    others = np.concatenate([tags, boxes])
    low = np.maximum(corner[:, None], others[:, :2])  # (corner, other, x and y)
    high = np.minimum(corner[:, None] + (width - 1, height - 1), others[:, 2:])
    shared = np.maximum(high - low + 1, 0).prod(axis=2)
    on_tags, on_boxes = shared[:, : len(tags)].sum(axis=1), shared[:, len(tags) :].sum(axis=1)
    best = int(np.lexsort((on_boxes, on_tags))[0])
    return (int(corner[best, 0]), int(corner[best, 1])), bool(on_tags[best])

"""Histograms of whole numbers as one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from theworld.data.inspection.lettering import font, text_width
from theworld.data.pictures.drawing import Colour

WIDTH, HEIGHT = 620, 320
"""Of one histogram, in pixels."""

COLUMNS = 2

_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 24, 74, 46
_MOST_BARS, _WIDEST_BAR = 50, 60
_PAPER: Colour = (255, 255, 255)
_INK: Colour = (24, 28, 34)
_FAINT: Colour = (98, 106, 117)
_GRID: Colour = (228, 231, 235)
_BAR: Colour = (47, 111, 176)


def histograms(columns: Mapping[str, NDArray[np.int64]]) -> Image.Image:
    """One histogram a column, two side by side, in order.

    Args:
        columns: Title → int64[N], N at least 1.

    Raises:
        ValueError: No columns, or one without values.
    """
    if not columns or any(len(values) == 0 for values in columns.values()):
        raise ValueError("found no values to count, expected at least one in each of one or more columns.")
    across = min(COLUMNS, len(columns))
    picture = Image.new("RGB", (across * WIDTH, -(-len(columns) // across) * HEIGHT), _PAPER)
    for number, (title, values) in enumerate(columns.items()):
        place = (number % across * WIDTH, number // across * HEIGHT)
        picture.paste(_histogram(title, values), place)
    return picture


def bars(values: NDArray[np.int64]) -> tuple[int, int, NDArray[np.int64]]:
    """First edge, width of a bar (whole numbers) and count in each bar, at most 50 of them."""
    low, high = int(values.min()), int(values.max())
    width = nice_step((high - low + 1) / _MOST_BARS)
    first = low // width * width
    counts = np.bincount((values - first) // width)
    return first, width, counts


def nice_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is at least `least`."""
    power = 10 ** max(0, math.floor(math.log10(max(least, 1))))
    return next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= least)


def _histogram(title: str, values: NDArray[np.int64]) -> Image.Image:
    first, width, counts = bars(values)
    last = first + width * len(counts)
    picture = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_LEFT, 14), title, fill=_INK, font=font(18))
    middle = np.median(values)
    draw.text(
        (_LEFT, 42), f"min {values.min():,} · median {middle:,.0f} · max {values.max():,}", fill=_FAINT, font=font(14)
    )
    right, floor = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    rise = nice_step(int(counts.max()) / 4)
    top = rise * -(-int(counts.max()) // rise)
    for level in range(0, top + 1, rise):
        y = floor - level / top * (floor - _TOP)
        draw.line((_LEFT, y, right, y), fill=_GRID)
        draw.text((_LEFT - 8, y), f"{level:,}", fill=_FAINT, font=font(13), anchor="rm")
    scale = (right - _LEFT) / (last - first)
    for number, count in enumerate(counts.tolist()):
        if count:
            middle_of_bar = _LEFT + (number + 0.5) * width * scale
            half = min(max(width * scale / 2 - 0.75, 0.5), _WIDEST_BAR / 2)
            y = min(floor - count / top * (floor - _TOP), floor - 1)
            draw.rectangle((middle_of_bar - half, y, middle_of_bar + half - 0.5, floor), fill=_BAR)
    draw.line((_LEFT, floor, right, floor), fill=_FAINT)
    _draw_scale(draw, first, width, last, scale, floor)
    return picture


def _draw_scale(draw: ImageDraw.ImageDraw, first: int, width: int, last: int, scale: float, floor: int) -> None:
    """Numbers below the bars: under its bar where one holds one number, else at the edges."""
    widest = text_width(f"{last:,}", 13) + 18
    step = nice_step(max(1.0, widest / scale))
    shift = 0.5 if width == 1 else 0.0
    for value in range(-(-first // step) * step, last + (width > 1), step):
        x = _LEFT + (value + shift - first) * scale
        draw.line((x, floor, x, floor + 4), fill=_FAINT)
        draw.text((x, floor + 9), f"{value:,}", fill=_FAINT, font=font(13), anchor="mt")

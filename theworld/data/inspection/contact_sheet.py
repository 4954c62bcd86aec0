"""A picture to look data over with: drawn images as the model sees them, with the whole text of their conversations.

Text is wrapped and never cut; `Region [3]` stands on the colour that the region has in the image. A character that the
font lacks is written as its code point, so that it cannot hide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from theworld.data.inspection.lettering import font, text_width, visible
from theworld.data.pictures.drawing import Colour, region_colours
from theworld.data.pictures.regions import Turn

COLUMNS = 3
CARD_WIDTH = 620
"""Of a card, its border included, in pixels."""

_MARGIN, _PADDING = 24, 18
_PAGE: Colour = (236, 238, 241)
_CARD: Colour = (255, 255, 255)
_BORDER: Colour = (205, 210, 216)
_INK: Colour = (24, 28, 34)
_FAINT: Colour = (98, 106, 117)
_ANSWER: Colour = (0, 92, 72)

_CHIP = 4
"""Space on either side of a region's name, in pixels."""

_REGION = re.compile(r"Region \[(\d+)\]")
_PIECES = re.compile(r"Region \[\d+\]|\n| +|[^ \n]+?(?=Region \[\d+\]|[ \n]|$)")


@dataclass(frozen=True, kw_only=True)
class Card:
    """One sample.

    Attributes:
        title: Name of the row.
        notes: Lines about it, e.g. its token counts.
        image: With its regions drawn.
        turns: Questions and answers, with `Region [g]` names.
    """

    title: str
    notes: tuple[str, ...]
    image: Image.Image
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class _Piece:
    """Text without a space, from `x` on; on the colour of its region, if it names one."""

    x: float
    text: str
    region: int | None


@dataclass(frozen=True)
class _Line:
    """One line of text of a card; `label` stands in the left margin of the first line of a question or answer."""

    pieces: tuple[_Piece, ...]
    size: int
    ink: Colour
    label: str = ""
    space: int = 0

    @property
    def height(self) -> int:
        return round(1.42 * self.size) + self.space


def contact_sheet(cards: Sequence[Card], *, title: str, columns: int = COLUMNS) -> Image.Image:
    """One RGB picture of all cards, in order from left to right; a column takes the next card when it is the shortest.

    Args:
        cards: At least one.
        title: Stands above them.
        columns: Cards side by side.

    Raises:
        ValueError: No cards.
    """
    if not cards:
        raise ValueError("found no samples to show, expected at least one; ask for more, or repair the rows.")
    columns = min(columns, len(cards))
    drawn = [_draw_card(card) for card in cards]
    width = columns * (CARD_WIDTH + _MARGIN) + _MARGIN
    head = _wrap(title, width - 2 * _MARGIN, 22, _INK)
    bottoms = [sum(line.height for line in head) + 2 * _MARGIN] * columns
    places = []
    for card in drawn:
        column = bottoms.index(min(bottoms))
        places.append((_MARGIN + column * (CARD_WIDTH + _MARGIN), bottoms[column]))
        bottoms[column] += card.height + _MARGIN
    sheet = Image.new("RGB", (width, max(bottoms)), _PAGE)
    _draw_lines(ImageDraw.Draw(sheet), head, _MARGIN, _MARGIN)
    for card, place in zip(drawn, places, strict=True):
        sheet.paste(card, place)
    return sheet


def _draw_card(card: Card) -> Image.Image:
    inner = CARD_WIDTH - 2 * _PADDING
    image = _fit(card.image, inner)
    lines = _card_lines(card, inner)
    height = image.height + sum(line.height for line in lines) + 3 * _PADDING
    picture = Image.new("RGB", (CARD_WIDTH, height), _PAGE)
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((0, 0, CARD_WIDTH - 1, height - 1), radius=10, fill=_CARD, outline=_BORDER)
    left = _PADDING + (inner - image.width) // 2
    picture.paste(image, (left, _PADDING))
    draw.rectangle((left - 1, _PADDING - 1, left + image.width, _PADDING + image.height), outline=_BORDER)
    _draw_lines(draw, lines, _PADDING, image.height + 2 * _PADDING)
    return picture


def _fit(image: Image.Image, width: int) -> Image.Image:
    """At most `width` wide and as high; small images grow by a whole factor, so that their pixels stay pixels."""
    scale = min(width / image.width, width / image.height)
    if scale >= 2:
        return image.resize((image.width * int(scale), image.height * int(scale)), Image.Resampling.NEAREST)
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    return image.resize(size, Image.Resampling.LANCZOS)


def _card_lines(card: Card, width: int) -> list[_Line]:
    lines = _wrap(card.title, width, 18, _INK)
    for note in card.notes:
        lines += _wrap(note, width, 14, _FAINT)
    for question, answer in card.turns:
        lines += _wrap(question, width, 17, _INK, label="Q", space=10)
        lines += _wrap(answer, width, 17, _ANSWER, label="A", space=2)
    return lines


def _wrap(text: str, width: int, size: int, ink: Colour, *, label: str = "", space: int = 0) -> list[_Line]:
    """Lines of at most `width` pixels; words are kept whole unless one alone is wider. `space` goes above the first."""
    indent = 1.5 * size if label else 0.0
    rows: list[list[_Piece]] = [[]]
    x = indent
    for word in _words(text):
        if word == ["\n"]:
            rows.append([])
            x = indent
            continue
        gap = _width(" ", size) if rows[-1] else 0.0
        if x + gap + sum(_width(piece, size) for piece in word) > width and rows[-1]:
            rows.append([])
            x, gap = indent, 0.0
        x += gap
        for piece in word:
            for part in _breakable(piece, width - indent, size):
                if x + _width(part, size) > width + 0.5 and rows[-1]:
                    rows.append([])
                    x = indent
                rows[-1].append(_Piece(x, part, _region_of(part)))
                x += _width(part, size)
    marks = [label] + [""] * (len(rows) - 1)
    spaces = [space] + [0] * (len(rows) - 1)
    return [_Line(tuple(row), size, ink, mark, above) for row, mark, above in zip(rows, marks, spaces, strict=True)]


def _words(text: str) -> list[list[str]]:
    """Pieces between spaces, which stay on one line; a line break is a word of its own."""
    words: list[list[str]] = [[]]
    for piece in _PIECES.findall(visible(text)):
        if piece == "\n":
            words += [["\n"], []]
        elif piece.isspace():
            words.append([])
        else:
            words[-1].append(piece)
    return [word for word in words if word]


def _breakable(piece: str, width: float, size: int) -> list[str]:
    """The piece, or parts of it that are as wide as the line at most."""
    if _width(piece, size) <= width:
        return [piece]
    parts = [""]
    for character in piece:
        if parts[-1] and _width(parts[-1] + character, size) > width:
            parts.append("")
        parts[-1] += character
    return parts


def _draw_lines(draw: ImageDraw.ImageDraw, lines: Sequence[_Line], left: int, top: int) -> None:
    for line in lines:
        top += line.space
        letters = font(line.size)
        baseline = top + round(1.05 * line.size)
        if line.label:
            draw.text((left, baseline), line.label, fill=_FAINT, font=letters, anchor="ls", stroke_width=0.4)
        for piece in line.pieces:
            ink, x = line.ink, left + piece.x
            if piece.region is not None:
                fill, ink = region_colours(piece.region)
                right = x + _width(piece.text, line.size) - 1
                draw.rounded_rectangle((x, top, right, top + 1.38 * line.size), radius=4, fill=fill, outline=_FAINT)
                x += _CHIP
            draw.text((x, baseline), piece.text, fill=ink, font=letters, anchor="ls")
        top += line.height - line.space


def _region_of(text: str) -> int | None:
    match = _REGION.fullmatch(text)
    return int(match.group(1)) if match else None


def _width(text: str, size: int) -> float:
    return text_width(text, size) + (2 * _CHIP if _REGION.fullmatch(text) else 0)

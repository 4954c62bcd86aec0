"""Text in pictures for people: a font with more than ASCII where the system has one, and no hidden characters."""

from __future__ import annotations

from contextlib import suppress
from functools import cache, lru_cache
from unicodedata import category

from PIL import ImageFont

FONTS = ("NotoSans-Regular.ttf", "DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf")
"""Looked for in the system's folders, in this order; Pillow's own font, the last resort, has little beyond ASCII."""


UNSHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Kinds of characters that have no picture, whatever a font says: controls, formats, halves of a pair, separators of
lines and paragraphs (of which the last stop Pillow's layout with an error)."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font in a size, in pixels."""
    for name in FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size=size)


@lru_cache(maxsize=1 << 16)
def text_width(text: str, size: int) -> float:
    """Width of one line of text, in pixels."""
    return float(font(size).getlength(text))


def visible(text: str) -> str:
    """The text with the code point, `<U+200B>`, for each character that the font would show as a box or as nothing.

    Spaces and line breaks stay.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


@cache
def _visible(character: str) -> str:
    if character in " \n":
        return character
    letters = font(20)
    shown = b"" if category(character) in UNSHOWN else bytes(letters.getmask(character))
    absent = bytes(letters.getmask("\U0010ffff"))
    return character if any(shown) and shown != absent else f"<U+{ord(character):04X}>"

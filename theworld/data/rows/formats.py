"""The formats of rows by name, as settings and the headers of indexes have them."""

from __future__ import annotations

from theworld.data.rows.llava import LlavaFormat
from theworld.data.rows.osd import OSDFormat
from theworld.data.rows.row import RowFormat
from theworld.data.rows.vsr import VsrFormat

FORMATS: dict[str, RowFormat] = {"osd": OSDFormat(), "llava": LlavaFormat(), "vsr": VsrFormat()}


def format_named(name: str) -> RowFormat:
    """The format of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in FORMATS:
        raise ValueError(f"row_format is {name!r}, expected one of {', '.join(map(repr, FORMATS))}.")
    return FORMATS[name]

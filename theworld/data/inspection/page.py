"""The findings of `theworld data inspect` as one HTML file: no scripts, nothing loaded from elsewhere, text escaped."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from unicodedata import category

from PIL import Image

from theworld.data.inspection.contact_sheet import Card
from theworld.data.inspection.lettering import UNSHOWN
from theworld.data.pictures.drawing import region_colours

LARGEST_SIDE = 1600
"""Larger images are shrunk for the page, in pixels."""

_PHOTO_PIXELS = 1 << 16
_REGION = re.compile(r"Region \[(\d+)\]")
_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #181c22; background: #eceef1; margin: 2rem auto; max-width: 1900px;
  padding: 0 1.5rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; background: #fff; margin: .5rem 0 1rem }
th, td { border: 1px solid #cdd2d8; padding: .25rem .75rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
th { white-space: nowrap }
img { max-width: 100%; border: 1px solid #cdd2d8; box-sizing: border-box }
img.small { image-rendering: pixelated; width: 100% }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 560px), 1fr)); gap: 1.5rem;
  align-items: start }
.card { background: #fff; border: 1px solid #cdd2d8; border-radius: 10px; padding: 1.1rem }
.card h3 { margin: .75rem 0 0; font-size: 1.05rem; overflow-wrap: anywhere }
.note { color: #626a75; font-size: .875rem; margin: 0 }
.turn { display: grid; grid-template-columns: 1.5rem 1fr; margin: .6rem 0 0 }
.turn b { color: #626a75 } .turn p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere }
.answer { color: #005c48 }
.region { border: 1px solid #626a75; border-radius: 4px; padding: 0 .25em; white-space: nowrap }
"""


def render_page(
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    verdicts: Sequence[tuple[str, int, Sequence[str]]],
    charts: Image.Image | None,
    cards: Sequence[Card],
    failures: Sequence[str],
) -> str:
    """The page.

    Args:
        title: Its heading.
        facts: Names and values, one line of a table each.
        verdicts: Code, number of rows and examples of each verdict.
        charts: Histograms, if there is anything to count.
        cards: The samples shown.
        failures: What could not be shown, and why.
    """
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body><h1>{_text(title)}</h1>",
        _table([(name, value, "") for name, value in facts]),
        "<h2>Verdicts</h2>",
        _table([(code, f"{count:,}", "\n".join(examples)) for code, count, examples in verdicts]),
    ]
    if charts is not None:
        parts.append(f'<h2>Samples in numbers</h2><img src="{_data_uri(charts)}" alt="histograms">')
    if failures:
        parts += ["<h2>Could not be shown</h2><ul>", *(f"<li>{_text(failure)}</li>" for failure in failures), "</ul>"]
    parts += ['<h2>Samples as the model sees them</h2><div class="cards">', *map(_card, cards), "</div>"]
    return "\n".join([*parts, "</body></html>\n"])


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    lines = []
    for name, value, detail in rows:
        cells = f'<th>{_text(name)}</th><td class="number">{_text(value)}</td>'
        if any(row[2] for row in rows):
            cells += f"<td>{_text(detail).replace(chr(10), '<br>')}</td>"
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _card(card: Card) -> str:
    small = ' class="small"' if card.image.width * card.image.height < _PHOTO_PIXELS else ""
    picture = f'<img{small} src="{_data_uri(card.image)}" alt="{_text(card.title)}">'
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in card.notes)
    turns = "".join(
        f'<div class="turn"><b>Q</b><p>{_named(question)}</p><b>A</b><p class="answer">{_named(answer)}</p></div>'
        for question, answer in card.turns
    )
    return f'<div class="card">{picture}<h3>{_text(card.title)}</h3>{notes}{turns}</div>'


def _named(text: str) -> str:
    """Escaped text, with the regions' names on their colours."""

    def chip(match: re.Match[str]) -> str:
        fill, ink = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in region_colours(int(match.group(1))))
        return f'<span class="region" style="background:{fill};color:{ink}">{match.group()}</span>'

    return _REGION.sub(chip, _text(text))


def _text(text: str) -> str:
    """Escaped; a character that shows nothing or turns the direction of writing stands there as its code point."""
    return html.escape("".join(map(_character, text)))


def _character(character: str) -> str:
    is_hidden = category(character) in UNSHOWN and character not in "\n\t"
    return f"<U+{ord(character):04X}>" if is_hidden else character


def _data_uri(image: Image.Image) -> str:
    """The image in the page itself: small ones and charts without loss, photos as a good JPEG."""
    buffer = io.BytesIO()
    is_photo = image.width * image.height >= _PHOTO_PIXELS and image.getcolors(1 << 12) is None
    if is_photo:
        shown = image.copy()
        shown.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        shown.save(buffer, "JPEG", quality=92, subsampling=0)
    else:
        image.save(buffer, "PNG", optimize=True)
    kind = "jpeg" if is_photo else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"

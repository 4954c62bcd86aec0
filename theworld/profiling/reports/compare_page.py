"""A comparison for a reader: Markdown, and one HTML file without scripts that loads nothing."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence

from theworld.profiling.reports.comparison import Compared, Line, Section

_WIDE = 3
"""Up to this many reports, differences and ratios have columns of their own; with more they stand below the value."""

_MANY = 8
"""With more columns than this a number may take two lines, so that no table is wider than a page of 1280 pixels."""

_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.45 system-ui, sans-serif; color: #181c22; background: #eceef1; margin: 1.5rem auto;
  max-width: 1180px; padding: 0 1rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; background: #fff; margin: .5rem 0 1rem; width: 100% }
th, td { border: 1px solid #cdd2d8; padding: .2rem .55rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere }
thead th { background: #f5f6f8 } tbody th { font-weight: 400 }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
td.number { white-space: nowrap } th.number { min-width: 5.6rem }
table.many td.number { white-space: normal } table.many th.number { min-width: 0 }
tr.differs td { background: #fff7e0 } small { color: #4d5560 }
img { max-width: 100%; border: 1px solid #cdd2d8; box-sizing: border-box; background: #fff }
.note { color: #4d5560; font-size: .9rem }
"""


def page(compared: Compared, picture: bytes) -> str:
    """The HTML file, with the picture in it."""
    return "\n".join(_page(compared, picture))


def markdown(compared: Compared) -> str:
    """The same tables as Markdown."""
    return "\n".join(_markdown(compared)) + "\n"


def _markdown(compared: Compared) -> Iterator[str]:
    yield f"# {_title(compared)}\n\n![compared](compare.png)\n\n## Machines and settings\n"
    rows = [(label, *values) for label, values in compared.settings()]
    yield _markdown_table(["", *compared.names], rows)
    for section in compared.sections():
        yield f"\n## {section.title}\n"
        yield _markdown_table(_headings(compared), [_cells(line, compared) for line in section.lines])


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(headings) - 1)]
    lines = [headings, rule, *rows]
    texts = [[cell.replace("|", "\\|").replace("\n", "<br>") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in texts)


def _page(compared: Compared, picture: bytes) -> Iterator[str]:
    title = html.escape(_title(compared))
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    yield "style-src 'unsafe-inline'\">"
    yield f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
    first = html.escape(compared.names[0])
    yield f'<p class="note">Differences and ratios are to {first}, the first report. Made from the reports alone.</p>'
    yield f'<img src="data:image/png;base64,{base64.b64encode(picture).decode("ascii")}" alt="the reports drawn">'
    for section in compared.sections():
        yield from _section(section, compared)
    yield "<h2>Machines and settings</h2>"
    rows = [(label, *values) for label, values in compared.settings()]
    yield _table(["", *compared.names], rows, ["differs" if len(set(row[1:])) > 1 else "" for row in rows], number="")
    yield "</body></html>\n"


def _section(section: Section, compared: Compared) -> Iterator[str]:
    yield f"<h2>{html.escape(section.title)}</h2>"
    rows = [_cells(line, compared) for line in section.lines]
    yield _table(_headings(compared), rows, [""] * len(rows), number=' class="number"')


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str], *, number: str) -> str:
    first, *others = headings
    head = f"<th>{html.escape(first)}</th>" + "".join(f"<th{number}>{html.escape(text)}</th>" for text in others)
    body = []
    for (label, *cells), kind in zip(rows, kinds, strict=True):
        texts = "".join(f"<td{number}>{_cell(cell)}</td>" for cell in cells)
        body.append(f"<tr{f' class={kind!r}' if kind else ''}><th>{html.escape(label)}</th>{texts}</tr>")
    many = " class='many'" if len(headings) > _MANY else ""
    return f"<table{many}><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cell(text: str) -> str:
    value, *below = html.escape(text).split("\n")
    return "<br>".join([value, *(f"<small>{line}</small>" for line in below)])


def _headings(compared: Compared) -> list[str]:
    first, *others = compared.names
    if len(compared.names) > _WIDE:
        return ["", *compared.names]
    return ["", first, *(heading for name in others for heading in (name, "difference", "ratio"))]


def _cells(line: Line, compared: Compared) -> list[str]:
    cells = [line.label, line.value(0)]
    for report in range(1, len(compared.names)):
        three = (line.value(report), line.difference(report), line.ratio(report))
        cells += three if len(compared.names) <= _WIDE else ["\n".join(part for part in three if part)]
    return cells


def _title(compared: Compared) -> str:
    return f"Profiles compared: {', '.join(compared.names)}"

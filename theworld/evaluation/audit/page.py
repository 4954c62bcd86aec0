"""The findings for a reader: a table in the terminal, and one HTML file without scripts that loads nothing."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from theworld.evaluation.audit.arms import ARMS, FUTURE_ARMS, REAL
from theworld.evaluation.audit.comparison import ArmResult
from theworld.evaluation.audit.figure import draw
from theworld.evaluation.audit.findings import Findings

_EXAMPLES = 6
_COLUMNS = ("arm", "right, %", "95 % interval", "difference", "p (Holm)", "answers differ", "largest logit difference")
_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #181c22; background: #eceef1; margin: 1.5rem auto;
  max-width: 1180px; padding: 0 1rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2rem }
h3 { font-size: 1rem }
table { border-collapse: collapse; background: #fff; margin: .5rem 0 1rem; max-width: 100% }
th, td { border: 1px solid #cdd2d8; padding: .25rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere }
td.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100%; border: 1px solid #cdd2d8; box-sizing: border-box; background: #fff }
.verdict { background: #fff; border-left: 6px solid #2f6fb0; padding: .6rem 1rem; margin: .5rem 0 }
.error { border-left-color: #b3261e } .note { color: #4d5560; font-size: .9rem }
"""


def table(findings: Findings) -> Table:
    """For a terminal of 80 columns: the arms, then errors or verdicts."""
    found = Table(title=f"Audit of {findings.model}", caption=_caption(findings), caption_justify="left")
    found.add_column("arm", no_wrap=True)
    for heading in ("right, %", "95 % interval", "difference", "p (Holm)", "answers differ"):
        found.add_column(heading, justify="right")
    for result in findings.results:
        arm, right, interval, difference, p_value, answers, _ = _cells(result)
        short = difference.split(" ")[0]
        found.add_row(arm, right, interval, short, p_value, answers, style="bold" if arm == REAL else "")
    return found


def write_page(findings: Findings, folder: Path) -> list[Path]:
    """Write `audit.png` and `report.html`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, page = folder / "audit.png", folder / "report.html"
    picture.write_bytes(draw(findings))
    page.write_text("\n".join(_page(findings, picture.read_bytes())), encoding="utf-8", newline="\n")
    return [picture, page]


def _page(findings: Findings, picture: bytes) -> Iterator[str]:
    title = f"Audit of {findings.model}"
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    yield "style-src 'unsafe-inline'\">"
    yield f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
    for error in findings.errors:
        yield f'<p class="verdict error"><b>Error.</b> {html.escape(error)}</p>'
    if findings.errors:
        yield '<p class="note">No verdict: the arms below measured nothing.</p>'
    else:
        yield from (f'<p class="verdict">{html.escape(sentence)}</p>' for sentence in findings.verdict.sentences)
    yield f'<p class="note">{html.escape(_facts(findings))}</p>'
    yield f'<img src="data:image/png;base64,{base64.b64encode(picture).decode("ascii")}" alt="the findings drawn">'
    yield "<h2>Arms</h2>"
    yield _html_table(_COLUMNS, [_cells(result) for result in findings.results])
    yield "<h2>What the arms are</h2>"
    meanings = ARMS | FUTURE_ARMS
    yield _html_table(("arm", "what the model is given"), [(r.arm, meanings[r.arm]) for r in findings.results])
    yield "<h2>How to read it</h2>"
    yield "".join(f"<p>{html.escape(text)}</p>" for text in _READING)
    yield f"<h2>Answers of the first {min(_EXAMPLES, findings.n)} questions</h2>"
    yield from _examples(findings)
    yield "</body></html>\n"


_READING = (
    "Whether the model relies on its world tokens is decided by the arm “shuffled” alone. It gives the model real "
    "world tokens, but of another image: only what they say of this picture is gone. A model that is merely used to "
    "having world tokens does worse in “zeroed”, “noise” or “blocked” and not in “shuffled”.",
    "Every arm is compared with “real” on the same questions: an exact McNemar test, corrected after Holm for the "
    "number of arms, and a bootstrap over images for the interval of the difference.",
    "An arm whose logits are bit for bit those of “real” although its inputs are not is an error and no result: the "
    "branch is disconnected. The same answers with other logits are a result: the model does not rely on what was "
    "changed, within what a set of this size can show.",
)


def _examples(findings: Findings) -> Iterator[str]:
    for number, question in enumerate(findings.questions[:_EXAMPLES]):
        yield f"<h3>{html.escape(question.question)}</h3>"
        texts = [(arm, answers.texts[number]) for arm, answers in findings.answers.items()]
        yield _html_table(("", "answer"), [("truth", question.answer), *texts])


def _html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    numeric = len(headings) > 2
    lines = ["<tr>" + "".join(f"<th>{html.escape(heading)}</th>" for heading in headings) + "</tr>"]
    for first, *others in rows:
        kind = ' class="number"' if numeric else ""
        cells = "".join(f"<td{kind}>{html.escape(cell)}</td>" for cell in others)
        lines.append(f"<tr><th>{html.escape(first)}</th>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cells(result: ArmResult) -> tuple[str, ...]:
    interval = f"{100 * result.interval.low:.1f} to {100 * result.interval.high:.1f}"
    start = (result.arm, f"{100 * result.accuracy:.1f}", interval)
    if result.arm == REAL:
        return (*start, "", "", "", "")
    if not result.inputs_changed:
        return (*start, "", "same inputs", "", "")
    bounds = result.difference_interval
    return (
        *start,
        f"{100 * result.difference:+.1f} ({100 * bounds.low:+.1f} to {100 * bounds.high:+.1f})",
        f"{result.p_holm:.2g}",
        f"{result.answers_changed} of {result.n}",
        "none: disconnected" if result.is_disconnected else f"{result.largest_logit_difference:.2g}",
    )


def _facts(findings: Findings) -> str:
    loud = findings.loudness
    images = len({question.image_id for question in findings.questions})
    return (
        f"{findings.n} questions about {images} images of {findings.data}; blank_image: {findings.blank_image}. "
        f"World tokens have {loud.world / loud.text:.2f} times the RMS of the prompts' text and "
        f"{loud.world / loud.vocabulary:.2f} times that of the whole vocabulary; "
        f"{100 * loud.world_varying:.0f} % of it differs between samples."
    )


def _caption(findings: Findings) -> str:
    lines = [f"Error. {error}" for error in findings.errors] or list(findings.verdict.sentences)
    return "\n".join([*lines, _facts(findings)])

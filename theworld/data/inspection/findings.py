"""Looking data over before training on it: what can be used, how long samples are, how well they pack, and samples.

Writes `inspect.html` (everything), `contact_sheet.png` (the samples) and `histograms.png`, and prints the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from theworld.data.indexing.index import Index
from theworld.data.inspection.contact_sheet import Card, contact_sheet
from theworld.data.inspection.histograms import histograms
from theworld.data.inspection.page import render_page
from theworld.data.packing.plan import plan
from theworld.data.pictures.regions import RegionStyle
from theworld.data.rows.faults import OK
from theworld.data.rows.row import RowFormat
from theworld.data.shown import Shown, show_row
from theworld.data.stores import RowStore

EXAMPLES = 3
"""Rows of a verdict that are quoted."""

_Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an index says about its source.

    Attributes:
        facts: Names and values, for a table.
        verdicts: Code, number of rows and quoted examples, `ok` first.
        columns: Title → int64[S], for histograms; empty without samples.
        cards: Samples, as the model sees them.
        failures: Samples that could not be read, and why.
    """

    facts: tuple[tuple[str, str], ...]
    verdicts: tuple[tuple[str, int, tuple[str, ...]], ...]
    columns: dict[str, _Ints]
    cards: tuple[Card, ...]
    failures: tuple[str, ...]


def inspect_source(
    store: RowStore,
    index: Index,
    *,
    row_format: RowFormat,
    token_budget: int,
    max_images: int | None = None,
    samples: int = 12,
    seed: int = 0,
) -> Findings:
    """Count, pack and read.

    Args:
        store: Where rows and images come from.
        index: Of the source.
        row_format: How the JSON of a row is understood.
        token_budget: Tokens of a packed row.
        max_images: Most images of a packed row; None for any number.
        samples: How many samples are shown, drawn without replacement.
        seed: Seed of that draw, and of the plan.

    Raises:
        ValueError: The longest sample exceeds the budget.
    """
    chosen = np.random.default_rng(seed).permutation(len(index))[:samples]
    cards, failures = _read(store, index, np.sort(index.eligible[chosen]), row_format)
    return Findings(
        facts=(*_sample_facts(index), *_packing_facts(index, token_budget, max_images, seed)),
        verdicts=_verdicts(index),
        columns=_columns(index),
        cards=cards,
        failures=failures,
    )


def write_findings(findings: Findings, output: str | Path, *, title: str) -> tuple[Path, ...]:
    """Write page and pictures into a folder.

    Args:
        findings: From `inspect_source`.
        output: The folder, made if need be; files of the same names are replaced.
        title: Heading of the page and of the contact sheet.

    Returns:
        The files.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    charts = histograms(findings.columns) if findings.columns else None
    pictures = {
        "histograms.png": charts,
        "contact_sheet.png": contact_sheet(findings.cards, title=title) if findings.cards else None,
    }
    for name, picture in pictures.items():
        if picture is not None:
            picture.save(output / name)
    page = render_page(
        title=title,
        facts=findings.facts,
        verdicts=findings.verdicts,
        charts=charts,
        cards=findings.cards,
        failures=findings.failures,
    )
    (output / "inspect.html").write_text(page, encoding="utf-8")
    return (output / "inspect.html", *(output / name for name, picture in pictures.items() if picture is not None))


def print_findings(findings: Findings, *, title: str, console: Console | None = None) -> None:
    """Print facts, verdicts and failures as tables."""
    console = console or Console()
    facts = Table(title=Text(title), title_justify="left", show_header=False)
    facts.add_column()
    facts.add_column(justify="right")
    for name, value in findings.facts:
        facts.add_row(Text(name), Text(value))
    verdicts = Table("verdict", "rows", "for example", title="Verdicts", title_justify="left")
    for code, count, examples in findings.verdicts:
        verdicts.add_row(Text(code), Text(f"{count:,}", justify="right"), Text(examples[0] if examples else ""))
    console.print(facts, verdicts)
    for failure in findings.failures:
        console.print(Text(f"could not be shown: {failure}"), style="bold red")


def _read(
    store: RowStore, index: Index, rows: _Ints, row_format: RowFormat
) -> tuple[tuple[Card, ...], tuple[str, ...]]:
    cards, failures = [], []
    style = cast(RegionStyle, index.header.settings.region_style)
    for row in rows.tolist():
        try:
            shown = show_row(store, index, row, row_format=row_format, region_style=style)
        except (ValueError, OSError) as error:
            failures.append(str(error))
        else:
            cards.append(_card(index, row, shown))
    return tuple(cards), tuple(failures)


def _card(index: Index, row: int, shown: Shown) -> Card:
    count = {name: index.number(name, row) for name in _COUNTS}
    notes = [
        f"row {row:,} · {shown.image.width} × {shown.image.height} pixels · {_plural(len(shown.regions), 'region')}",
        f"{count['text_tokens'] + count['image_tokens'] + count['world_tokens']:,} tokens: {count['text_tokens']:,} "
        f"text ({count['target_tokens']:,} to learn), {count['image_tokens']:,} image, {count['world_tokens']:,} world",
    ]
    if dropped := count["turns"] - count["kept_turns"]:
        notes.append(f"{_plural(dropped, 'trailing turn')} beyond {index.max_seq_length:,} tokens dropped")
    return Card(title=shown.id, notes=tuple(notes), image=shown.image, turns=shown.turns)


_COUNTS = ("text_tokens", "target_tokens", "image_tokens", "world_tokens", "turns", "kept_turns")


def _sample_facts(index: Index) -> list[tuple[str, str]]:
    facts = [("rows", f"{len(index.table):,}"), ("samples", f"{len(index):,}")]
    if len(index):
        kept, turns = index.kept_turns[index.eligible], index.num_turns[index.eligible]
        cut = kept < turns
        facts += [
            ("trailing turns dropped", f"{int((turns - kept).sum()):,} from {_plural(int(cut.sum()), 'sample')}"),
            ("tokens", f"{int(index.lengths[index.eligible].sum()):,}"),
            ("tokens to learn", f"{int(index.targets[index.eligible].sum()):,}"),
        ]
    return facts


def _packing_facts(index: Index, budget: int, max_images: int | None, seed: int) -> list[tuple[str, str]]:
    """With the lengths that the index counted: a run that draws world tokens at random has fewer and fuller rows."""
    if not len(index):
        return []
    lengths = index.lengths[index.eligible]
    packed = plan(
        lengths,
        images=index.num_images[index.eligible],
        seed=seed,
        epoch=0,
        budget=budget,
        micro_batches_per_step=1,
        max_images=max_images,
    )
    images = "any number of images" if max_images is None else f"at most {_plural(max_images, 'image')}"
    positions = packed.num_steps * budget
    waste = positions - int(lengths.sum())
    return [
        ("packed rows an epoch", f"{packed.num_steps:,} of {budget:,} tokens, {images}"),
        ("samples a row", f"{len(lengths) / packed.num_steps:.2f}"),
        ("filled", f"{packed.fill_ratio:.2%}"),
        ("padding", f"{waste:,} of {positions:,} positions ({waste / positions:.2%})"),
    ]


def _columns(index: Index) -> dict[str, _Ints]:
    if not len(index):
        return {}
    return {
        "Tokens a sample": index.lengths[index.eligible],
        "Tokens to learn a sample": index.targets[index.eligible],
        "Turns a sample": index.kept_turns[index.eligible],
        "Regions a row": index.column("regions")[index.eligible],
    }


def _verdicts(index: Index) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    quoted: dict[str, list[str]] = {}
    for verdict in index.verdicts:
        code, _, detail = verdict.partition(": ")
        examples = quoted.setdefault(code, [])
        if code != OK and len(examples) < EXAMPLES:
            examples.append(detail)
    return tuple((code, count, tuple(quoted[code])) for code, count in index.verdict_counts().items())


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"

"""The files of a report: `report.json`, and `report.md` with its pictures, which are made from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from theworld.profiling.reports import figures, tables
from theworld.profiling.reports.schema import FILE, Report
from theworld.profiling.reports.units import duration, size

PICTURES = {"memory.png": figures.memory, "modules.png": figures.modules, "operations.png": figures.operations}


def write_report(report: Report, folder: Path) -> None:
    """Write all of them; the folder is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(report, indent=1) + "\n")
    (folder / "report.md").write_text("\n".join(_markdown(report)) + "\n")
    for name, draw in PICTURES.items():
        (folder / name).write_bytes(draw(report))


def summary(report: Report) -> str:
    """A few words for the terminal."""
    memory, time, rates = report["memory"], report["time"], report["throughput"]
    largest = sorted(memory["category_bytes"].items(), key=lambda item: -item[1])[:4]
    parts = ", ".join(f"{name.replace('_', ' ')} {size(count)}" for name, count in largest)
    whole = size(memory["breakdown_sum_bytes"])
    return (
        f"step {duration(time['step_seconds'])}, {rates['tokens_per_second']:,.0f} tokens/s; the places add up to "
        f"{time['places_over_step']:.1%} of it\n"
        f"peak {size(memory['peak_allocated_bytes'])}: {parts}; the parts add up to {whole}"
    )


def markdown_table(table: tables.Table) -> str:
    """A table of Markdown."""
    headings, rows = table
    rule = ["---:" if tables.is_numeric(table, column) else "---" for column in range(len(headings))]
    lines = [headings, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown(report: Report) -> Iterator[str]:
    yield f"# Profile of {report['name']}\n"
    yield ", ".join(f"{name} {value}" for name, value in report["machine"].items()) + ".\n"
    yield "; ".join(f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in report["run"].items()) + ".\n"
    yield f"## Summary\n\n{markdown_table(tables.summary_table(report))}\n"
    yield f"## Memory breakdown\n\n{markdown_table(tables.memory_table(report))}\n"
    yield "From the allocator's own history: the blocks that lived when together they were the most.\n"
    yield "![memory over the step](memory.png)\n"
    yield f"{markdown_table(tables.memory_parts_table(report))}\n"
    yield f"## Parameters\n\n{markdown_table(tables.parameters_table(report))}\n"
    yield f"## Time by operation\n\n{markdown_table(tables.operations_table(report, kernels=False))}\n"
    if any(row["is_kernel"] for row in report["operations"]):
        yield f"{markdown_table(tables.operations_table(report, kernels=True))}\n"
    yield "![operations](operations.png)\n"
    yield f"## Time by module\n\n{markdown_table(tables.modules_table(report))}\n"
    yield "![modules](modules.png)\n"
    yield f"## Forward, backward, optimizer\n\n{markdown_table(tables.phases_table(report))}\n"
    yield f"## Loss\n\n{markdown_table(tables.loss_table(report))}"


def _plain(value: str | int | list[str]) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)

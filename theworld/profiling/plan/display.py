"""The plan of a run on the terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from theworld.profiling.plan import calibration
from theworld.profiling.plan.report import GIB, RunReport, StageReport, described


def show(report: RunReport, console: Console) -> None:
    """Print it."""
    console.print(Text(f"shape: {report.shape}"))
    console.print(Text(f"rows: {report.rows}"))
    for stage in report.stages:
        console.print()
        console.print(Group(*_stage(stage, report.card)))
    for note in report.notes:
        console.print(Text(note))


def _stage(stage: StageReport, card: str | None) -> list[RenderableType]:
    memory, work = stage.memory, stage.work
    table = Table(title=f"Stage {stage.name}: {described(memory.choices)}", title_justify="left")
    table.add_column("at the peak")
    table.add_column("GiB", justify="right")
    for name, size in memory.breakdown.items():
        table.add_row(name, f"{size / GIB:.2f}")
    table.add_section()
    table.add_row("allocated (torch.cuda.max_memory_allocated)", f"{memory.allocated_bytes / GIB:.2f}")
    needed = f"{memory.needed_bytes / GIB:.2f}"
    table.add_row("needs on the card: with free blocks and CUDA context (calibrated)", needed)
    phases = ", ".join(f"{name} {size / GIB:.2f}" for name, size in memory.phase_bytes.items())
    trained = ", ".join(f"{name} {count:,}" for name, count in stage.parameters["trained"].items())
    lines: list[RenderableType] = [
        table,
        Text(f"peak in the {memory.peak.phase} pass; tensors by phase, GiB: {phases}"),
    ]
    lines.append(Text(f"trains: {trained}"))
    lines.append(Text(f"a step: {work.tokens:,} tokens, {work.flops / 1e12:,.0f} useful TFLOP"))
    if work.floor_seconds is not None and work.expected_seconds is not None and work.expected_hours is not None:
        lines.append(
            Text(
                f"{card}: {work.floor_seconds:.2f} s a step at least, {work.expected_seconds:.2f} s expected "
                f"(× {work.expected_seconds / work.floor_seconds:.2f}, from {calibration.MEASURED_ON}); "
                f"{work.steps:,} steps: {work.expected_hours:.1f} h"
            )
        )
    return lines + ([_cards(stage)] if stage.fits else [])


def _cards(stage: StageReport) -> Table:
    table = Table(title="What fits", title_justify="left")
    for heading in ("card, GB", "way to run it", "needs, GB", "flags to add"):
        table.add_column(heading, justify="right" if "GB" in heading else "left", overflow="fold")
    for fit in stage.fits:
        if fit.best is None:
            least = min(memory.needed_bytes for memory in fit.simulated) / calibration.GB
            table.add_row(f"{fit.memory_gb:g}", "nothing that is known here", f"at least {least:.1f}", "")
        else:
            needs = f"{fit.best.needed_bytes / calibration.GB:.1f}"
            table.add_row(f"{fit.memory_gb:g}", described(fit.best.choices), needs, " ".join(fit.flags) or "none")
    return table

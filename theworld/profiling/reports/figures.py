"""Pictures of a report."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from theworld.profiling.memory.breakdown import CATEGORIES
from theworld.profiling.reports.schema import Report
from theworld.profiling.reports.tables import PHASES
from theworld.profiling.reports.units import duration, short, size, summed

WIDTH, DPI = 11.6, 100
"""Inches and dots an inch: 1160 pixels, so that a page of 1280 holds it."""

COLOURS = {
    "weights": "#2f4b7c",
    "gradients": "#8a3ffc",
    "optimizer_state": "#a05195",
    "activations": "#2f9e8f",
    "logits": "#d1495b",
    "forward_temporaries": "#9fd8c8",
    "backward_temporaries": "#edae49",
    "optimizer_temporaries": "#b5651d",
    "inputs": "#7fb2e5",
    "workspace": "#6b7280",
    "rounding": "#c4cad1",
    "other": "#181c22",
}
"""A colour for each category, on every picture the same."""

_FORWARD, _BACKWARD, _AROUND, _INK = "#2f6fb0", "#edae49", "#9aa3ad", "#181c22"
_BARS = 18


def memory(report: Report) -> bytes:
    """Memory over the step, and beside it the stack at the peak."""
    figure = Figure(figsize=(WIDTH, 5.2), dpi=DPI, layout="constrained")
    over_time, stack = figure.subplots(1, 2, width_ratios=[2.6, 1])
    found = report["memory"]
    timeline, (text, factor) = found["timeline"], unit(found["peak_allocated_bytes"])
    names = [name for name in CATEGORIES if name in timeline["bytes"]]
    layers = [[count / factor for count in timeline["bytes"][name]] for name in names]
    scale, seconds = clock(timeline["seconds"][-1])
    times = [moment / scale for moment in timeline["seconds"]]
    over_time.stackplot(times, *layers, step="post", colors=[COLOURS[name] for name in names])
    over_time.axvline(timeline["peak_seconds"] / scale, color=_INK, linewidth=0.8, linestyle=":")
    over_time.set(xlim=(0, times[-1]), xlabel=f"{seconds} since the step began, while it is recorded")
    over_time.set_ylim(0, 1.05 * found["peak_allocated_bytes"] / factor)
    over_time.set_title(f"Memory over a step, {text} (dotted: the peak)", loc="left", fontsize=11)
    _stack(stack, report, factor)
    return png(figure, over_time, stack)


def modules(report: Report) -> bytes:
    """Time by module, forward and backward, and what is around them."""
    rows: dict[str, list[tuple[str, float]]] = {}
    for place in report["time"]["places"]:
        inside = place["phase"] in ("forward", "backward")
        name = short(place["part"]) if inside else f"{PHASES[place['phase']].split(',')[0]}: {place['part']}"
        rows.setdefault(name, []).append((place["phase"] if inside else "around", place["seconds"]))
    sums = {name: summed(pairs) for name, pairs in rows.items()}
    order = sorted(sums, key=lambda name: sum(sums[name].values()))[-_BARS:]
    scale, text = clock(max(sum(sums[name].values()) for name in order))
    figure = Figure(figsize=(WIDTH, 1.2 + 0.3 * len(order)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    lefts = [0.0] * len(order)
    for phase, colour in (("forward", _FORWARD), ("backward", _BACKWARD), ("around", _AROUND)):
        widths = [sums[name].get(phase, 0.0) / scale for name in order]
        axes.barh(order, widths, left=lefts, color=colour, height=0.66, label=_LEGEND[phase])
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    _label(axes, lefts, [duration(left * scale) for left in lefts])
    axes.legend(fontsize=9, frameon=False, loc="lower right")
    step = duration(report["time"]["step_seconds"])
    axes.set_title(f"Time of a step by module, {text} (a step without any tool: {step})", loc="left", fontsize=11)
    return png(figure, axes)


_LEGEND = {"forward": "forward", "backward": "backward", "around": "around the model"}


def operations(report: Report) -> bytes:
    """The longest kernels, or on the CPU operations."""
    on_cuda = any(row["is_kernel"] for row in report["operations"])
    found = [row for row in report["operations"] if row["is_kernel"] is on_cuda]
    times = {row["name"]: row["cuda_seconds"] if on_cuda else row["cpu_seconds"] for row in found}
    order = sorted(times, key=lambda name: times[name])[-_BARS:]
    figure = Figure(figsize=(WIDTH, 1.2 + 0.3 * len(order)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    scale, text = clock(max(times.values()))
    lengths = [times[name] / scale for name in order]
    axes.barh(range(len(order)), lengths, color=_FORWARD, height=0.66)
    axes.set_yticks(range(len(order)), labels=[literal(name if len(name) <= 48 else f"{name[:47]}…") for name in order])
    _label(axes, lengths, [duration(times[name]) for name in order])
    what = "Kernels of the device" if on_cuda else "Operations of the host"
    axes.set_title(f"{what} by their own time in a step, {text}", loc="left", fontsize=11)
    return png(figure, axes)


def _stack(axes: Axes, report: Report, factor: int) -> None:
    counts, peak = report["memory"]["category_bytes"], report["memory"]["peak_allocated_bytes"]
    bottom = 0.0
    for name in CATEGORIES:
        if name not in counts and name not in report["memory"]["timeline"]["bytes"]:
            continue
        count = counts.get(name, 0)  # what lives at another moment is drawn beside this, and needs its colour named
        axes.bar(
            [0],
            [count / factor],
            bottom=[bottom],
            color=COLOURS[name],
            width=0.5,
            label=f"{name.replace('_', ' ')}  {size(count)}",
        )
        bottom += count / factor
    axes.set(xlim=(-0.3, 0.3), xticks=[], ylim=(0, 1.05 * peak / factor))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title(f"At the peak: {size(peak)}", loc="left", fontsize=11)


def _label(axes: Axes, lengths: list[float], texts: list[str]) -> None:
    longest = max(lengths)
    for place, (length, text) in enumerate(zip(lengths, texts, strict=True)):
        axes.text(length + 0.01 * longest, place, text, va="center", fontsize=9, color=_INK)
    axes.set_xlim(0, 1.15 * longest)


def unit(count: float) -> tuple[str, int]:
    """Name and bytes of the unit in which a size is drawn."""
    return ("GiB", 2**30) if count >= 2**30 else ("MiB", 2**20)


def clock(seconds: float) -> tuple[float, str]:
    """Seconds and name of the unit in which a time is drawn."""
    return (1.0, "s") if seconds >= 1 else (1e-3, "ms")


def literal(name: str) -> str:
    """A name as it is; between two dollars it would be set as a formula, or be none and end the run."""
    return name.replace("$", r"\$")


def png(figure: Figure, *axes: Axes) -> bytes:
    """The picture, its axes without the frame's upper and right side."""
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

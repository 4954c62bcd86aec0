"""Reports side by side in one picture: memory at the peak, time of a step, loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from theworld.profiling.memory.breakdown import CATEGORIES
from theworld.profiling.reports.comparison import Compared
from theworld.profiling.reports.figures import COLOURS, DPI, WIDTH, clock, literal, png, unit
from theworld.profiling.reports.tables import PHASES
from theworld.profiling.reports.units import duration, size

_PHASE_COLOURS = {
    "forward": "#2f6fb0",
    "backward": "#edae49",
    "optimizer": "#a05195",
    "data": "#7fb2e5",
    "loop": "#9aa3ad",
}
_LINES = ("#2f6fb0", "#d1495b", "#2f9e8f", "#b5651d", "#8a3ffc", "#6b7280")
_LONGEST = 22


def draw(compared: Compared) -> bytes:
    """A PNG."""
    count = len(compared.names)
    figure = Figure(figsize=(WIDTH, 3.6 + 0.7 * count), dpi=DPI, layout="constrained")
    axes = figure.subplot_mosaic([["memory"], ["time"], ["loss"]], height_ratios=[1, 1, 1.2])
    _memory(axes["memory"], compared)
    _time(axes["time"], compared)
    _loss(axes["loss"], compared)
    return png(figure, *axes.values())


def _memory(axes: Axes, compared: Compared) -> None:
    memories = [report["memory"] for report in compared.reports]
    text, factor = unit(max(memory["peak_allocated_bytes"] for memory in memories))
    bars = {n: [memory["category_bytes"].get(n, 0) / factor for memory in memories] for n in CATEGORIES}
    _stacked(axes, compared, bars, COLOURS, [size(memory["peak_allocated_bytes"]) for memory in memories])
    axes.set_title(f"Memory at the peak, {text}", loc="left", fontsize=11)


def _time(axes: Axes, compared: Compared) -> None:
    times = [report["time"] for report in compared.reports]
    scale, text = clock(max(time["step_seconds"] for time in times))
    bars = {
        phase: [sum(p["seconds"] for p in time["places"] if p["phase"] == phase) / scale for time in times]
        for phase in PHASES
    }
    _stacked(axes, compared, bars, _PHASE_COLOURS, [duration(time["step_seconds"]) for time in times])
    axes.set_title(f"Time of a step, {text}", loc="left", fontsize=11)


def _loss(axes: Axes, compared: Compared) -> None:
    for number, (name, report) in enumerate(zip(compared.names, compared.reports, strict=True)):
        axes.plot(report["loss"], "o-", markersize=3, color=_LINES[number % len(_LINES)], label=_short(name))
    axes.legend(fontsize=9, frameon=False)
    axes.set_xlabel("step", fontsize=9)
    axes.set_title("Loss", loc="left", fontsize=11)


def _short(name: str) -> str:
    return literal(name if len(name) <= _LONGEST else f"…{name[-_LONGEST:]}")


def _stacked(
    axes: Axes, compared: Compared, bars: Mapping[str, Sequence[float]], colours: Mapping[str, str], ends: Sequence[str]
) -> None:
    """One bar a report, the first on top, with what it comes to behind it."""
    places = range(len(compared.names))[::-1]
    lefts = [0.0] * len(compared.names)
    for name, widths in bars.items():
        if any(widths):
            axes.barh(places, widths, left=lefts, color=colours[name], height=0.62, label=name.replace("_", " "))
            lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    for place, left, end in zip(places, lefts, ends, strict=True):
        axes.text(left + 0.01 * max(lefts), place, end, va="center", fontsize=9)
    axes.set_yticks(places, labels=[_short(name) for name in compared.names])
    axes.set_xlim(0, 1.12 * max(lefts))
    axes.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))

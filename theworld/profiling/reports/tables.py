"""The tables of a report, as rows of text: what `report.md` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from theworld.profiling.memory.breakdown import CATEGORIES
from theworld.profiling.reports.schema import OperationRow, PlaceTime, Report
from theworld.profiling.reports.units import duration, share, short, size, summed

Table = tuple[Sequence[str], list[Sequence[str]]]
"""Headings, and rows of as many cells."""

PHASES = {
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "data": "data",
    "loop": "loop, callbacks and logging",
}
"""Phase → name, in the order of a step."""

_TOP = 25


def summary_table(report: Report) -> Table:
    """What one looks for first."""
    memory, time, rates = report["memory"], report["time"], report["throughput"]
    rows = [
        ("device", report["machine"]["device"]),
        ("peak of allocated memory", size(memory["peak_allocated_bytes"])),
        ("allocated when a step begins", size(memory["start_allocated_bytes"])),
        ("step", duration(time["step_seconds"])),
        ("tokens a step", f"{rates['tokens_per_step']:,.0f} ({rates['samples_per_step']:.3g} samples)"),
        ("tokens a second", f"{rates['tokens_per_second']:,.0f}"),
        ("samples a second", f"{rates['samples_per_second']:.3g}"),
        ("useful work a step", f"{rates['useful_flops_per_step'] / 1e12:.4g} TFLOP"),
        ("useful work of the measured ceiling", _mfu(rates, "mfu_of_measured_ceiling", "measured_ceiling")),
        ("places' times over the step's", f"{time['places_over_step']:.3f}"),
    ]
    if "peak_reserved_bytes" in memory:
        rows.insert(2, ("peak of reserved memory", size(memory["peak_reserved_bytes"])))
    if "untouched_peak_allocated_bytes" in memory:
        rows.insert(3, ("the same peaks without any tool", _untouched(report)))
    if "mfu_of_peak" in rates:
        rows.append(("useful work of the card's peak (MFU)", _mfu(rates, "mfu_of_peak", "peak")))
    if "launches" in time:
        rows.append(("kernel launches a step", f"{time['launches']:,.0f}"))
        rows.append(("host waits for the device, a step", f"{time['host_waits']:.3g}"))
        rows.append(("device without a kernel, a step", duration(time["idle_seconds"])))
    return ("", "value"), [list(row) for row in rows]


def memory_table(report: Report) -> Table:
    """The peak by category."""
    memory = report["memory"]
    whole = memory["peak_allocated_bytes"]
    rows: list[Sequence[str]] = [
        (CATEGORIES[name], size(count), share(count, whole)) for name, count in memory["category_bytes"].items()
    ]
    total = memory["breakdown_sum_bytes"]
    return ("at the peak", "size", "share"), [*rows, ("sum", size(total), share(total, whole))]


def memory_parts_table(report: Report) -> Table:
    """The peak by category and part."""
    rows: list[Sequence[str]] = []
    for name in report["memory"]["category_bytes"]:
        parts = [(short(row["part"]), row["bytes"]) for row in report["memory"]["breakdown"] if row["category"] == name]
        rows += [(CATEGORIES[name], part, size(count)) for part, count in summed(parts).items()]
    return ("category", "part", "size"), rows


def parameters_table(report: Report) -> Table:
    """Groups of parameters."""
    rows: list[Sequence[str]] = [
        (group, f"{row['parameters']:,}", f"{row['trainable_parameters']:,}", size(row["bytes"]))
        for group, row in report["parameters"].items()
    ]
    counts = list(report["parameters"].values())
    total, trains = (sum(row[key] for row in counts) for key in ("parameters", "trainable_parameters"))
    rows.append(("all", f"{total:,}", f"{trains:,}", size(sum(row["bytes"] for row in counts))))
    return ("group", "parameters", "of them train", "size"), rows


def operations_table(report: Report, *, kernels: bool) -> Table:
    """The longest operations, or kernels."""
    rows = [row for row in report["operations"] if row["is_kernel"] is kernels]
    on_cuda = any("cuda_seconds" in row for row in rows)
    key = "cuda_seconds" if on_cuda else "cpu_seconds"
    whole = sum(_seconds(row, key) for row in rows)
    headings = ["kernel" if kernels else "operation", "calls"]
    headings += ([] if kernels else ["CPU time"]) + (["CUDA time"] if on_cuda else []) + ["share"]
    body: list[Sequence[str]] = []
    for row in sorted(rows, key=lambda row: -_seconds(row, key))[:_TOP]:
        cells = [row["name"][:100], f"{row['calls']:,.0f}"]
        cells += [] if kernels else [duration(row["cpu_seconds"])]
        cells += [duration(row["cuda_seconds"])] if on_cuda else []
        body.append([*cells, share(_seconds(row, key), whole)])
    return headings, body


def modules_table(report: Report) -> Table:
    """Time of a step by module: forward and backward side by side, then what is around them."""
    time = report["time"]
    on_cuda = "launches" in time
    parts: dict[tuple[bool, str], dict[str, list[PlaceTime]]] = {}
    for place in time["places"]:
        inside = place["phase"] in ("forward", "backward")
        name = short(place["part"]) if inside else f"{PHASES[place['phase']]}: {place['part']}"
        column = place["phase"] if inside else "around"
        parts.setdefault((inside, name), {}).setdefault(column, []).append(place)
    order = sorted(parts.items(), key=lambda item: (not item[0][0], -_total(item[1].values())))
    headings = ["part", "forward", "backward", "all", "share", "host"] + (["kernels", "launches"] if on_cuda else [])
    return headings, [_module_row(name, columns, report, on_cuda) for (_, name), columns in order]


def phases_table(report: Report) -> Table:
    """Forward, backward, optimizer, and the rest."""
    time = report["time"]
    sums = {phase: sum(p["seconds"] for p in time["places"] if p["phase"] == phase) for phase in PHASES}
    rows: list[Sequence[str]] = [
        (PHASES[phase], duration(seconds), share(seconds, time["step_seconds"])) for phase, seconds in sums.items()
    ]
    rows.append(("sum", duration(time["places_sum_seconds"]), share(time["places_sum_seconds"], time["step_seconds"])))
    rows.append(("a step without any tool", duration(time["step_seconds"]), "100.0%"))
    return ("phase", "time", "share of the step"), rows


def loss_table(report: Report) -> Table:
    """Loss of the first step, of the last one, and of some between them."""
    losses = report["loss"]
    shown = sorted({round(number * (len(losses) - 1) / 9) for number in range(10)}) if losses else []
    return ("step", "loss"), [(str(number), f"{losses[number]:.4f}") for number in shown]


def is_numeric(table: Table, column: int) -> bool:
    """Whether a column holds numbers, to be set flush right."""
    cells = [row[column] for row in table[1] if row[column]]
    return column > 0 and sum(cell[0] in "+-−0123456789" for cell in cells) > len(cells) / 2


def _module_row(name: str, columns: dict[str, list[PlaceTime]], report: Report, on_cuda: bool) -> Sequence[str]:
    every = [place for places in columns.values() for place in places]
    seconds, step = sum(place["seconds"] for place in every), report["time"]["step_seconds"]
    cells = [name, *(duration(_total([columns[c]])) if c in columns else "" for c in ("forward", "backward"))]
    cells += [duration(seconds), share(seconds, step), duration(sum(place["host_seconds"] for place in every))]
    if on_cuda:
        cells.append(duration(sum(place.get("kernel_seconds", 0.0) for place in every)))
        cells.append(f"{sum(place.get('launches', 0.0) for place in every):,.0f}")
    return cells


def _total(columns: Iterable[Sequence[PlaceTime]]) -> float:
    return sum(place["seconds"] for places in columns for place in places)


def _seconds(row: OperationRow, key: str) -> float:
    return row["cuda_seconds"] if key == "cuda_seconds" else row["cpu_seconds"]


def _mfu(rates: dict[str, float], key: str, name: str) -> str:
    return f"{rates[key]:.1%} of {rates[f'{name}_flops_per_second'] / 1e12:,.4g} TFLOP/s"


def _untouched(report: Report) -> str:
    memory = report["memory"]
    return f"{size(memory['untouched_peak_allocated_bytes'])}, {size(memory['untouched_peak_reserved_bytes'])} reserved"

"""What two or more reports have in common and where they differ, as sections of lines of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from theworld.profiling.memory.breakdown import CATEGORIES
from theworld.profiling.reports.schema import Report
from theworld.profiling.reports.tables import PHASES
from theworld.profiling.reports.units import duration, number, short, size, summed

_TOP = 15

Show = Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """One quantity.

    Attributes:
        label: What it is.
        values: Of each report; None where it has none.
        show: Writes one with its unit.
        show_difference: Writes the difference of two, if not as `show` does.
    """

    label: str
    values: Sequence[float | None]
    show: Show
    show_difference: Show | None = None

    def value(self, report: int) -> str:
        """Of one report."""
        found = self.values[report]
        return "none" if found is None else self.show(found)

    def difference(self, report: int) -> str:
        """To the first report, with its sign."""
        first, found = self.values[0], self.values[report]
        if first is None or found is None:
            return ""
        show = self.show_difference or self.show
        return f"{'+' if found >= first else '−'}{show(abs(found - first))}"

    def ratio(self, report: int) -> str:
        """To the first report."""
        first, found = self.values[0], self.values[report]
        return "" if not first or found is None else f"{found / first:.3g}×"


@dataclass(frozen=True)
class Section:
    """Lines under a title."""

    title: str
    lines: Sequence[Line]


class Compared:
    """Reports, the first of which the others are compared with.

    Args:
        reports: As they were read.
        places: Where from, to tell those with one name apart.
    """

    def __init__(self, reports: Sequence[Report], places: Sequence[str]) -> None:
        self.reports = reports
        given = [report["name"] for report in reports]
        self.names = list(given) if len(set(given)) == len(given) else list(places)

    def settings(self) -> list[tuple[str, list[str]]]:
        """Machine and settings of each, those that differ first."""
        sources = [report["machine"] | report["run"] for report in self.reports]
        keys = list(dict.fromkeys(key for source in sources for key in source))
        rows = [(key.replace("_", " "), [_plain(source.get(key)) for source in sources]) for key in keys]
        return sorted(rows, key=lambda row: len(set(row[1])) == 1)

    def sections(self) -> list[Section]:
        """Everything with numbers."""
        return [
            Section("Summary", list(self._summary())),
            Section("Memory at the peak", self._memory()),
            Section("Memory at the peak by part", self._memory_parts()),
            Section("Parameters", self._parameters()),
            Section("Time of a step", self._phases()),
            Section("Time of a step by module", self._modules()),
            Section("Time of a step by operation", self._operations(kernels=False)),
            *([Section("Time of a step by kernel", kernels)] if (kernels := self._operations(kernels=True)) else []),
            Section("Loss", self._loss()),
        ]

    def as_json(self) -> dict[str, object]:
        """Names, and the numbers of each line."""
        sections = {s.title: {line.label: list(line.values) for line in s.lines} for s in self.sections()}
        return {"names": self.names, "sections": sections}

    def _summary(self) -> Iterator[Line]:
        line = self._line
        yield line("peak of allocated memory", lambda r: r["memory"]["peak_allocated_bytes"], size)
        yield line("allocated when a step begins", lambda r: r["memory"]["start_allocated_bytes"], size)
        yield from self._where_known("peak of reserved memory", lambda r: r["memory"].get("peak_reserved_bytes"), size)
        yield line("step", lambda r: r["time"]["step_seconds"], duration)
        for key, label, show in _RATES:
            for known in self._where_known(label, partial(_rate, key=key), show):
                yield replace(known, show_difference=_points) if show is _percent else known
        yield from self._where_known("kernel launches a step", lambda r: r["time"].get("launches"), number)
        yield from self._where_known("host waits a step", lambda r: r["time"].get("host_waits"), number)
        yield from self._where_known("device without a kernel", lambda r: r["time"].get("idle_seconds"), duration)

    def _memory(self) -> list[Line]:
        lines = [self._line(text, partial(_category, name=name), size) for name, text in CATEGORIES.items()]
        total = self._line("sum", lambda r: r["memory"]["breakdown_sum_bytes"], size)
        return [*(line for line in lines if any(line.values)), total]

    def _memory_parts(self) -> list[Line]:
        def parts(report: Report) -> dict[str, float]:
            rows = report["memory"]["breakdown"]
            return summed((f"{row['category'].replace('_', ' ')}: {short(row['part'])}", row["bytes"]) for row in rows)

        return self._lines([parts(report) for report in self.reports], size)

    def _parameters(self) -> list[Line]:
        groups = list(dict.fromkeys(group for report in self.reports for group in report["parameters"]))
        lines: list[Line] = []
        for key, suffix in (("parameters", ""), ("trainable_parameters", ", of them train")):
            for group in [*groups, None]:
                read = partial(_parameters, group=group, key=key)
                lines.append(self._line(f"{group or 'all'}{suffix}", read, lambda count: f"{count:,.0f}"))
        return lines

    def _phases(self) -> list[Line]:
        def phase(report: Report, name: str) -> float:
            return sum(place["seconds"] for place in report["time"]["places"] if place["phase"] == name)

        lines = [self._line(text, partial(phase, name=name), duration) for name, text in PHASES.items()]
        lines.append(self._line("sum", lambda r: r["time"]["places_sum_seconds"], duration))
        return [*lines, self._line("a step without any tool", lambda r: r["time"]["step_seconds"], duration)]

    def _modules(self) -> list[Line]:
        def modules(report: Report) -> dict[str, float]:
            places = report["time"]["places"]
            return summed((f"{place['phase']}: {short(place['part'])}", place["seconds"]) for place in places)

        return self._lines([modules(report) for report in self.reports], duration)

    def _operations(self, *, kernels: bool) -> list[Line]:
        def seconds(report: Report) -> dict[str, float]:
            rows = [row for row in report["operations"] if row["is_kernel"] is kernels]
            return summed((_ends(row["name"]), row.get("cuda_seconds", row["cpu_seconds"])) for row in rows)

        return self._lines([seconds(report) for report in self.reports], duration)

    def _loss(self) -> list[Line]:
        show = "{:.4f}".format
        return [
            self._line("of the first step", lambda r: r["loss"][0] if r["loss"] else None, show),
            self._line("of the last step", lambda r: r["loss"][-1] if r["loss"] else None, show),
            self._line("lowest", lambda r: min(r["loss"], default=None), show),
        ]

    def _line(self, label: str, read: Callable[[Report], float | None], show: Show) -> Line:
        return Line(label, [read(report) for report in self.reports], show)

    def _where_known(self, label: str, read: Callable[[Report], float | None], show: Show) -> Iterator[Line]:
        line = self._line(label, read, show)
        if any(value is not None for value in line.values):
            yield line

    def _lines(self, tables: Sequence[Mapping[str, float]], show: Show) -> list[Line]:
        """The labels that are largest in any report; what a report lacks there is none."""
        largest = summed((label, value) for table in tables for label, value in table.items())
        return [Line(label, [table.get(label) for table in tables], show) for label in list(largest)[:_TOP]]


def _ends(name: str) -> str:
    """80 characters of it: kernels made from one template begin alike, and differ in what they compute at their end."""
    return name if len(name) <= 80 else f"{name[:39]}…{name[-40:]}"


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


_RATES: tuple[tuple[str, str, Show], ...] = (
    ("tokens_per_step", "tokens a step", number),
    ("samples_per_step", "samples a step", number),
    ("tokens_per_second", "tokens a second", number),
    ("samples_per_second", "samples a second", number),
    ("useful_flops_per_step", "useful work a step", lambda flops: f"{flops / 1e12:.4g} TFLOP"),
    ("measured_ceiling_flops_per_second", "measured ceiling", lambda rate: f"{rate / 1e12:.4g} TFLOP/s"),
    ("mfu_of_measured_ceiling", "useful work of the measured ceiling", _percent),
    ("mfu_of_peak", "useful work of the card's peak (MFU)", _percent),
)


def _rate(report: Report, *, key: str) -> float | None:
    return report["throughput"].get(key)


def _category(report: Report, *, name: str) -> float | None:
    return report["memory"]["category_bytes"].get(name)


def _parameters(report: Report, *, group: str | None, key: str) -> float | None:
    counts = report["parameters"]
    if group is not None and group not in counts:
        return None
    rows = counts.values() if group is None else [counts[group]]
    return sum(row["parameters"] if key == "parameters" else row["trainable_parameters"] for row in rows)


def _plain(value: str | int | list[str] | None) -> str:
    if value is None:
        return "none"
    return ", ".join(value) if isinstance(value, list) else str(value)

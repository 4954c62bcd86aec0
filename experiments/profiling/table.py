"""The seed's figures beside measured ones."""

from __future__ import annotations

from collections.abc import Mapping

from theworld.profiling.memory.breakdown import CATEGORIES
from theworld.profiling.reports.schema import Report
from theworld.profiling.reports.units import duration
from theworld.profiling.reports.write import markdown_table

SEED = {"projection": (89.92, 5.22), "gemma": (47.18, 1.06)}
"""Configuration → what the seed report measured: its "GB" of peak memory, which are GiB, and seconds of a step."""

GIB = 2**30


def table(reports: Mapping[str, Report], seed: Mapping[str, tuple[float, float]]) -> str:
    """Markdown: one row a category, a column for each way of running it.

    Args:
        reports: By configuration; those as the seed ran it end in `_as_the_seed`.
        seed: Its figures by configuration.
    """
    names = list(reports)
    device = next(iter(reports.values()))["machine"]["device"]
    rows = [["the seed report, GiB", *(f"{seed[name][0]:.2f}" if (name := _seed_of(n)) else "" for n in names)]]
    rows.append(["peak measured here, GiB", *(f"{_peak(report):.2f}" for report in reports.values())])
    rows.append(["over the seed's figure", *(_ratio(name, report, seed) for name, report in reports.items())])
    for category, text in CATEGORIES.items():
        sizes = [report["memory"]["category_bytes"].get(category, 0) for report in reports.values()]
        if any(sizes):
            rows.append([f"of it: {text}", *(f"{size / GIB:.2f}" for size in sizes)])
    rows.append(["sum, GiB", *(f"{report['memory']['breakdown_sum_bytes'] / GIB:.2f}" for report in reports.values())])
    rows.append(["step", *(duration(report["time"]["step_seconds"]) for report in reports.values())])
    rows.append(["the seed's step", *(duration(seed[name][1]) if (name := _seed_of(n)) else "" for n in names)])
    rows.append(["places over the step", *(f"{r['time']['places_over_step']:.3f}" for r in reports.values())])
    headings = [device, *(name.replace("_", " ") for name in names)]
    return markdown_table((headings, rows)) + "\n"


def _seed_of(name: str) -> str | None:
    configuration, found, _ = name.partition("_as_the_seed")
    return configuration if found else None


def _peak(report: Report) -> float:
    return report["memory"]["peak_allocated_bytes"] / GIB


def _ratio(name: str, report: Report, seed: Mapping[str, tuple[float, float]]) -> str:
    configuration = _seed_of(name)
    return "" if configuration is None else f"{_peak(report) / seed[configuration][0]:.3f}"

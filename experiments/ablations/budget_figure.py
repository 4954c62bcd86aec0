"""Right answers against world tokens a frame, and against operations of a prompt, for differently trained models."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

WIDTH, HEIGHT, DPI = 11.6, 4.4, 100
_SERIES = {
    "random_budget": ("one model, a random number in training", "#2f6fb0", "o-"),
    "world": ("one model, 64 in training", "#b5651d", "s--"),
    "fixed": ("a model of each number", "#181c22", "^:"),
}


class Asked(Protocol):
    """What is drawn of a model that was asked at one number of world tokens; `experiments.ablations.budgets.Point`."""

    arm: str
    tokens: int
    right: int
    questions: int
    gflop: float


def draw(points: Sequence[Asked], *, best_constant: float) -> bytes:
    """A PNG.

    Args:
        points: Of all arms and seeds.
        best_constant: Share of the questions that the best constant answers get right.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name in _SERIES:
        _series(left, points, name, "tokens")
        _series(right, points, name, "gflop")
    for axes in (left, right):
        axes.axhline(100 * best_constant, color="#9aa3ad", linewidth=1.2, label="best constant answers")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e9ec", linewidth=0.8)
    left.set_xscale("log", base=2)
    left.set_xticks(sorted({point.tokens for point in points}))
    left.xaxis.set_major_formatter(ScalarFormatter())
    left.xaxis.set_minor_locator(NullLocator())
    left.set_xlabel("world tokens a frame")
    left.set_ylabel("right answers, % (line: mean of the seeds)")
    right.set_xlabel("10⁹ operations to read a prompt, both towers included")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _series(axes: Axes, points: Sequence[Asked], name: str, cost: str) -> None:
    """A dot a seed, and a line through the means."""
    label, colour, style = _SERIES[name]
    # A model of 64 tokens is also the one of that number alone.
    own = [p for p in points if p.arm == name or (name == "fixed" and (p.arm.startswith("tokens_") or _is_whole(p)))]
    shares: dict[float, list[float]] = {}
    for point in own:
        shares.setdefault(getattr(point, cost), []).append(100 * point.right / point.questions)
    costs = sorted(shares)
    axes.plot(costs, [sum(shares[c]) / len(shares[c]) for c in costs], style, color=colour, label=label, markersize=6)
    for at in costs:
        axes.plot([at] * len(shares[at]), shares[at], ".", color=colour, markersize=4, alpha=0.5)


def _is_whole(point: Asked) -> bool:
    return point.arm == "world" and point.tokens == 64

"""Accuracies of the arms, and their differences from the reference, as one picture."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.ablations.compare import Comparison

WIDTH, DPI = 11.6, 100
_INK, _FAINT, _SEED = "#181c22", "#9aa3ad", "#2f6fb0"
_COLOURS = {"training": "#b5651d", "models": "#e3b98f", "none": "#c9ced4"}
_WORDS = {
    "training": "also to be expected of other seeds",
    "models": "of these models only",
    "none": "no difference shown",
}


def draw(comparison: Comparison) -> bytes:
    """A PNG."""
    arms = list(comparison.accuracies)[::-1]
    figure = Figure(figsize=(WIDTH, 1.9 + 0.42 * len(arms)), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _accuracies(left, comparison, arms)
    _differences(right, comparison, arms)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
        axes.set_ylim(-0.6, len(arms) - 0.4)
        axes.grid(axis="x", color="#e6e9ec", linewidth=0.8)
        axes.set_axisbelow(True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _accuracies(axes: Axes, comparison: Comparison, arms: list[str]) -> None:
    found = [comparison.accuracies[arm]["overall"] for arm in arms]
    for place, accuracy in enumerate(found):
        axes.plot([100 * a for a in accuracy.by_seed], [place] * len(accuracy.by_seed), "o", color=_SEED, markersize=5)
        axes.plot([100 * accuracy.mean], [place], "|", color=_INK, markersize=17, markeredgewidth=2)
    axes.axvline(100 * found[0].best_constant, color=_FAINT, linewidth=1.2, linestyle="--")
    axes.set_yticks(range(len(arms)), [arm.replace("_", " ") for arm in arms])
    axes.set_xlabel("right answers to all questions, %", fontsize=9)
    axes.set_title("Accuracy", loc="left", fontsize=11)
    axes.legend(
        handles=[
            Line2D([], [], marker="o", color=_SEED, linestyle="none", markersize=5, label="one seed"),
            Line2D([], [], marker="|", color=_INK, linestyle="none", markersize=12, label="mean of the seeds"),
            Line2D([], [], color=_FAINT, linestyle="--", label="best constant answers"),
        ],
        **_LEGEND,
    )


def _differences(axes: Axes, comparison: Comparison, arms: list[str]) -> None:
    axes.axvline(0, color=_INK, linewidth=0.8)
    for place, arm in enumerate(arms):
        if arm == comparison.reference:
            middle = axes.get_yaxis_transform()  # of the width, in the row of the arm
            axes.text(0.5, place, "the reference", transform=middle, ha="center", va="center", fontsize=9, color=_INK)
            continue
        found = comparison.differences[arm]["overall"]
        ends = [100 * found.questions.interval.low, 100 * found.questions.interval.high]
        axes.plot(ends, [place] * 2, color=_COLOURS[found.verdict], linewidth=7, solid_capstyle="butt")
        axes.plot([100 * d for d in found.by_seed], [place] * len(found.by_seed), "o", color=_SEED, markersize=5)
        axes.plot([100 * found.mean], [place], "|", color=_INK, markersize=17, markeredgewidth=2)
    axes.set_xlabel(f"points more (right) or fewer (left) than {comparison.reference.replace('_', ' ')}", fontsize=9)
    axes.set_title("Difference on the same questions", loc="left", fontsize=11)
    axes.legend(
        handles=[Line2D([], [], color=_COLOURS[v], linewidth=7, label=words) for v, words in _WORDS.items()],
        title="95 % interval over pictures; the difference is",
        title_fontsize=8,
        **_LEGEND,
    )


_LEGEND = {"fontsize": 8, "frameon": False, "loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 3}

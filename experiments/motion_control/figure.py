"""One picture of the control: the rows of two test scenes, and how often each arm is right."""

from __future__ import annotations

import io
import json
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from experiments.motion_control.frames import Split

WIDTH, HEIGHT, DPI = 11.6, 3.6, 110
_COLOURS = ("#2f6fb0", "#b5651d", "#b5651d", "#2f6fb0", "#9aa3ad")
_INK = "#181c22"
SHOWN = 4
"""Rows of two scenes."""


def draw(facts: dict[str, Any], split: Split) -> Image.Image:
    """The picture.

    Args:
        facts: As `run.py` writes them.
        split: The test rows.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    examples, arms = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    rows = json.loads(split.rows.read_text())[:SHOWN]
    grid = examples.subplots(2, SHOWN)
    for column, row in enumerate(rows):
        before = split.images / f"{row['filename']}.png"
        after = split.second / f"{row['id']}.png"
        for axes, path in zip(grid[:, column], (before, after), strict=True):
            axes.imshow(Image.open(path), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        grid[1, column].set_xlabel(row["conversations"][1]["value"], fontsize=10)
    grid[0, 0].set_ylabel("first frame", fontsize=9)
    grid[1, 0].set_ylabel("second frame", fontsize=9)
    question = rows[0]["conversations"][0]["value"].removeprefix("<image>\n")
    examples.suptitle(f"Two scenes, two rows each: {question}", fontsize=11)
    _arms(arms.subplots(), facts)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return Image.open(buffer)


def _arms(axes: Axes, facts: dict[str, Any]) -> None:
    """Accuracy with Wilson's interval; the test against the first arm behind it."""
    arms, comparisons = facts["arms"], facts["comparisons"]
    names = list(arms)
    for place, name in enumerate(names):
        arm = arms[name]
        axes.barh(place, 100 * arm["accuracy"], color=_COLOURS[place], height=0.6)
        axes.plot([100 * edge for edge in arm["interval"]], [place, place], color=_INK, linewidth=2)
        test = comparisons.get(f"{names[0]} against {name}")
        beside = f"{100 * arm['accuracy']:.1f}" + (f"   p = {test['p_value']:.1g}" if test else "")
        axes.text(102, place, beside, va="center", fontsize=9, color=_INK)
    axes.axvline(50, color=_INK, linewidth=0.8, linestyle=":")
    labels = [name.replace("_without", ",\nwithout").replace("_of_", "\nof ").replace("_", " ") for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.set(xlim=(0, 150), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("right answers, % (line: 95 % interval; dotted: chance)", fontsize=9, loc="left")
    axes.set_title(f"{arms[names[0]]['n']} questions about unseen scenes", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)

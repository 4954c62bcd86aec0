"""The findings as one picture: accuracies, attention, loudness, gradients."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from theworld.evaluation.audit.arms import FUTURE, REAL, WORLD_ARMS
from theworld.evaluation.audit.findings import Findings

WIDTH, HEIGHT, DPI = 11.6, 8.2, 100
"""Inches and dots an inch: 1160 pixels, so that a page of 1280 holds it."""

_REAL, _WORLD, _IMAGE, _FAINT, _INK = "#181c22", "#2f6fb0", "#b5651d", "#9aa3ad", "#181c22"


def draw(findings: Findings) -> bytes:
    """A PNG."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    grid = figure.subplot_mosaic([["arms", "arms"], ["mass", "rms"], ["mass", "gradient"]], height_ratios=[1.5, 1, 1])
    _arms(grid["arms"], findings)
    _mass(grid["mass"], findings)
    _loudness(grid["rms"], findings)
    _gradients(grid["gradient"], findings)
    for axes in grid.values():
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _arms(axes: Axes, findings: Findings) -> None:
    """Accuracy an arm, with Wilson's interval; the p-value of its difference to the real arm behind it."""
    results = findings.results[::-1]
    colours = [_REAL if r.arm == REAL else _WORLD if r.arm in (*WORLD_ARMS, FUTURE) else _IMAGE for r in results]
    axes.barh(range(len(results)), [100 * r.accuracy for r in results], color=colours, height=0.62)
    for place, result in enumerate(results):
        low, high = 100 * result.interval.low, 100 * result.interval.high
        axes.plot([low, high], [place, place], color=_FAINT, linewidth=2.5, solid_capstyle="butt")
        axes.text(102, place, _beside(result.arm, findings), va="center", fontsize=9, color=_INK)
    axes.axvline(100 * findings.result(REAL).accuracy, color=_REAL, linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 140), yticks=range(len(results)), yticklabels=[r.arm.replace("_", " ") for r in results])
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("right answers, % (grey: 95 % interval)", fontsize=9, loc="left")
    axes.set_title(f"The same {findings.n} questions in every arm", loc="left", fontsize=11)


def _beside(arm: str, findings: Findings) -> str:
    result = findings.result(arm)
    percent = f"{100 * result.accuracy:.1f}"
    if arm == REAL:
        return percent
    if not result.inputs_changed:
        return f"{percent}   same inputs as real"
    if result.is_disconnected:
        return f"{percent}   SAME LOGITS as real: disconnected"
    return f"{percent}   p = {result.p_holm:.2g},  {result.answers_changed} answers differ"


def _mass(axes: Axes, findings: Findings) -> None:
    """Attention of the rows that predict an answer, a layer each."""
    layers = findings.mass.layers
    numbers = [layer.layer for layer in layers]
    axes.plot(numbers, [100 * m.world for m in layers], "o-", color=_WORLD, label="world tokens")
    axes.plot(
        numbers, [100 * m.uniform_world for m in layers], ":", color=_WORLD, label="world, if attention were even"
    )
    axes.plot(numbers, [100 * m.image for m in layers], "s-", color=_IMAGE, label="image tokens")
    full = [m.layer for m in layers if m.kind == "full_attention"]
    axes.set_xticks(numbers if len(numbers) <= 12 else full)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"layer (global: {', '.join(map(str, full)) or 'none'}; the others see one window)", fontsize=9)
    axes.set_title("Attention of the answer, %", loc="left", fontsize=11)
    axes.legend(fontsize=9, frameon=False)


def _loudness(axes: Axes, findings: Findings) -> None:
    loud = findings.loudness
    values = {
        "text of the prompts": (loud.text, _FAINT),
        "whole vocabulary": (loud.vocabulary, _FAINT),
        "image": (loud.image, _IMAGE),
        "world": (loud.world, _WORLD),
        "world, differing between samples": (loud.world * loud.world_varying, _WORLD),
    }
    _bars(axes, {name: value for name, (value, _) in values.items()}, [colour for _, colour in values.values()])
    axes.set_title("Root mean square of the tokens", loc="left", fontsize=11)


def _gradients(axes: Axes, findings: Findings) -> None:
    norms = {group.replace("_", " "): gradient.norm for group, gradient in findings.gradients.items()}
    _bars(
        axes,
        norms,
        [_WORLD if group.startswith("world") else _IMAGE if group == "vision" else _FAINT for group in norms],
    )
    axes.set_title("Gradient norm by parameter group", loc="left", fontsize=11)


def _bars(axes: Axes, values: dict[str, float], colours: list[str]) -> None:
    names = list(values)[::-1]
    axes.barh(range(len(names)), [values[name] for name in names], color=colours[::-1], height=0.62)
    largest = max(values.values()) or 1.0
    for place, name in enumerate(names):
        axes.text(values[name] + 0.02 * largest, place, f"{values[name]:.3g}", va="center", fontsize=9, color=_INK)
    axes.set(xlim=(0, 1.2 * largest), yticks=range(len(names)), yticklabels=names)

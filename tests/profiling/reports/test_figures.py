"""What a picture of a report names."""

from __future__ import annotations

from tests.profiling.reports.test_compare import FIRST
from theworld.profiling.reports import figures


def test_every_colour_of_the_picture_of_memory_is_named(monkeypatch):
    """Gradients that are gone at the peak, too: they are drawn over the rest of the step."""
    drawn = []
    monkeypatch.setattr(figures, "png", lambda figure, *axes: drawn.append(axes) or b"")
    timeline = {"weights": [60, 60], "activations": [0, 40], "gradients": [9, 0]}
    memory = FIRST["memory"] | {"timeline": FIRST["memory"]["timeline"] | {"bytes": timeline}}
    figures.memory(FIRST | {"memory": memory})
    _, stack = drawn[0]
    names = [text.get_text().split("  ") for text in stack.get_legend().get_texts()]
    assert names == [["activations", "40.00 MiB"], ["gradients", "0 B"], ["weights", "60.00 MiB"]]

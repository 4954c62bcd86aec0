"""Rich tables as text, for `LightningModule.print`, which keeps clear of the progress bar."""

from __future__ import annotations

import io
import sys

from rich import get_console
from rich.console import Console, RenderableType

WIDTH_OF_A_FILE = 100
"""Columns used when the standard output is no terminal."""


def rendered(renderable: RenderableType) -> str:
    """The lines `rich` would print, with colours when the standard output is a terminal."""
    terminal = sys.stdout.isatty()
    width = get_console().width if terminal else WIDTH_OF_A_FILE
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().rstrip()

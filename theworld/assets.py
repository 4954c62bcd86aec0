"""Where a model or tokenizer name points to: a local directory, a Hub name, or the base shipped with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

TINY_BASE = "theworld-tiny"
"""Name of the tiny pretrained base that ships with the package (`experiments/tiny_base` says how it was made)."""


def resolve(name: str | Path) -> str:
    """The path of the shipped base when `name` is `theworld-tiny`, else `name` unchanged."""
    if str(name) == TINY_BASE:
        return str(files("theworld") / "tiny_base")
    return str(name)

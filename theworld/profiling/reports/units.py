"""Numbers as a reader wants them: with a unit, three or four digits, and names short enough for a table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_SHORT = (
    ("gemma.model.language_model.layers", "decoder layers"),
    ("gemma.model.language_model.", "decoder "),
    ("gemma.model.vision_tower.encoder.layers", "SigLIP layers"),
    ("gemma.model.vision_tower.", "SigLIP "),
    ("gemma.model.multi_modal_projector", "image projector"),
    ("gemma.lm_head", "logits of all rows"),
    ("cosmos_encoder.vae", "world encoder"),
    ("cosmos_encoder.projector", "world projector"),
)


def size(count: float) -> str:
    """Bytes in GiB, MiB or KiB."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= factor:
            return f"{count / factor:,.2f} {unit}"
    return f"{count:,.0f} B"


def duration(seconds: float) -> str:
    """Seconds in s, ms or µs."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if abs(seconds) >= factor:
            return (
                f"{seconds / factor:,.3g} {unit}" if abs(seconds / factor) < 1000 else f"{seconds / factor:,.0f} {unit}"
            )
    return f"{seconds / 1e-6:,.3g} µs"


def number(count: float) -> str:
    """A count, whole when it is large."""
    return f"{count:,.0f}" if abs(count) >= 100 else f"{count:.3g}"


def share(part: float, whole: float) -> str:
    """A part in percent of the whole."""
    return f"{part / whole:.1%}" if whole else "none"


def short(part: str) -> str:
    """A module's name for a table; layers of a stack have one name."""
    name = re.sub(r"\.layers\.\d+$", ".layers", part)
    name = name.removesuffix(".mm_soft_emb_norm")
    for long, replacement in _SHORT:
        if name.startswith(long):
            return replacement + name.removeprefix(long)
    return name


def summed(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Values of equal names added up, the largest first."""
    sums: dict[str, float] = defaultdict(float)
    for name, value in pairs:
        sums[name] += value
    return dict(sorted(sums.items(), key=lambda item: -item[1]))

"""Which part of the model a parameter belongs to, by its name; stages train whole groups."""

from __future__ import annotations

PARAMETER_GROUPS: tuple[tuple[str, str], ...] = (
    ("cosmos_encoder.projector.", "world_projector"),
    ("cosmos_encoder.vae.", "world_encoder"),
    ("gemma.model.vision_tower.", "vision"),
    ("gemma.model.multi_modal_projector.", "vision"),
    ("gemma.model.language_model.", "language"),
    ("gemma.lm_head.", "language"),
)
"""Name prefix → group; every parameter has exactly one."""


def parameter_group(name: str) -> str:
    """Group of the parameter called `name`."""
    for prefix, group in PARAMETER_GROUPS:
        if name.startswith(prefix):
            return group
    raise ValueError(
        f"found parameter {name!r}, expected a prefix of {[prefix for prefix, _ in PARAMETER_GROUPS]}; add its part "
        "to PARAMETER_GROUPS"
    )

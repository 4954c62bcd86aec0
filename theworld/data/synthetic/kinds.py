"""The catalogue: kinds of household objects, how they are built, how large they are, and the colours they come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Vector = tuple[float, float, float]
Place = Literal["floor", "top", "wall"]

COLOURS: dict[str, Vector] = {
    "red": (0.84, 0.10, 0.10),
    "orange": (0.98, 0.50, 0.05),
    "yellow": (0.98, 0.86, 0.12),
    "green": (0.12, 0.60, 0.20),
    "cyan": (0.15, 0.78, 0.82),
    "blue": (0.12, 0.25, 0.85),
    "purple": (0.50, 0.15, 0.68),
    "pink": (0.98, 0.52, 0.72),
    "white": (0.97, 0.97, 0.97),
    "black": (0.08, 0.08, 0.09),
}
"""Colour names of objects and their RGB in [0, 1]."""

PAINTS: dict[str, Vector] = {
    "wood": (0.45, 0.29, 0.16),
    "metal": (0.42, 0.43, 0.46),
    "leaf": (0.16, 0.42, 0.14),
    "paper": (0.93, 0.91, 0.84),
    "rubber": (0.13, 0.13, 0.14),
    "tan": (0.86, 0.72, 0.52),
}
"""Fixed colours of the parts that do not carry the object's colour; `main` and `contrast` follow the object."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One shape of an object: centre and size as fractions of the object's box (width, depth, height)."""

    shape: str
    centre: Vector
    size: Vector
    paint: str = "main"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Range of sizes: width in metres, height and depth as multiples of the width (`round`: depth is the width)."""

    width: tuple[float, float]
    height: tuple[float, float]
    depth: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of object.

    Attributes:
        parts: What it is drawn from.
        sizes: Setting (`room`, `tabletop`) and place (`floor`, `top`, `wall`) → range of sizes. On a table top the
            table is the floor; `top` means on another object or on a shelf.
        supports: Whether another object may stand on it.
        chance: How often it is tried, relative to the others: evens out that large kinds are refused more often.
    """

    parts: tuple[Part, ...]
    sizes: dict[tuple[str, Place], Sizes]
    supports: bool = False
    chance: float = 1.0


def _part(shape: str, centre: Vector, size: Vector, paint: str = "main") -> Part:
    return Part(shape=shape, centre=centre, size=size, paint=paint)


def _legs(height: float, thick: float, paint: str) -> tuple[Part, ...]:
    edge = 0.5 - thick / 2
    return tuple(
        _part("box", (x, y, -0.5 + height / 2), (thick, thick, height), paint)
        for x in (-edge, edge)
        for y in (-edge, edge)
    )


def _same(sizes: Sizes, *places: tuple[str, Place]) -> dict[tuple[str, Place], Sizes]:
    return dict.fromkeys(places, sizes)


ROOM_FLOOR: tuple[str, Place] = ("room", "floor")
ROOM_TOP: tuple[str, Place] = ("room", "top")
ROOM_WALL: tuple[str, Place] = ("room", "wall")
TABLE: tuple[str, Place] = ("tabletop", "floor")
TABLE_TOP: tuple[str, Place] = ("tabletop", "top")
TABLE_WALL: tuple[str, Place] = ("tabletop", "wall")

KINDS: dict[str, Kind] = {
    "mug": Kind(
        parts=(_part("cup", (-0.12, 0, 0), (0.76, 1, 1)), _part("ring", (0.28, 0, 0), (0.44, 0.2, 0.66))),
        sizes=_same(Sizes(width=(0.12, 0.22), height=(0.7, 1.0), depth=(0.76, 0.76)), TABLE, TABLE_TOP),
        chance=0.9,
    ),
    "bottle": Kind(
        parts=(_part("bottle", (0, 0, -0.04), (1, 1, 0.92)), _part("tube", (0, 0, 0.46), (0.4, 0.4, 0.08), "contrast")),
        sizes=_same(Sizes(width=(0.08, 0.14), height=(2.4, 3.4)), TABLE, TABLE_TOP),
    ),
    "book": Kind(
        parts=(
            _part("box", (0, 0, 0.43), (1, 1, 0.14)),
            _part("box", (0, 0, -0.43), (1, 1, 0.14)),
            _part("box", (-0.47, 0, 0), (0.06, 1, 1)),
            _part("box", (0.015, 0, 0), (0.92, 0.94, 0.74), "paper"),
        ),
        sizes=_same(Sizes(width=(0.2, 0.34), height=(0.2, 0.36), depth=(0.6, 0.8)), TABLE, TABLE_TOP),
        supports=True,
        chance=1.5,
    ),
    "lamp": Kind(
        parts=(
            _part("tube", (0, 0, -0.47), (0.7, 0.7, 0.06), "metal"),
            _part("tube", (0, 0, -0.15), (0.1, 0.1, 0.62), "metal"),
            _part("shade", (0, 0, 0.27), (1, 1, 0.46)),
        ),
        sizes={
            ROOM_FLOOR: Sizes(width=(0.35, 0.6), height=(2.0, 2.8)),
            ROOM_TOP: Sizes(width=(0.28, 0.42), height=(1.3, 1.9)),
            TABLE: Sizes(width=(0.2, 0.3), height=(1.3, 1.8)),
        },
        chance=1.2,
    ),
    "ball": Kind(
        parts=(_part("ball", (0, 0, 0), (1, 1, 1)),),
        sizes={
            ROOM_FLOOR: Sizes(width=(0.3, 0.7), height=(1, 1)),
            **_same(Sizes(width=(0.1, 0.26), height=(1, 1)), TABLE, TABLE_TOP),
        },
        chance=0.75,
    ),
    "box": Kind(
        parts=(
            _part("box", (0, 0, 0), (0.98, 0.98, 0.98)),
            _part("box", (0, 0, 0), (0.16, 1.0, 1.0), "tan"),
            _part("box", (0, 0, -0.4), (1.0, 0.98, 0.16)),
        ),
        sizes={
            ROOM_FLOOR: Sizes(width=(0.35, 0.8), height=(0.5, 1.3), depth=(0.7, 1.1)),
            TABLE: Sizes(width=(0.14, 0.32), height=(0.5, 1.3), depth=(0.7, 1.1)),
        },
        supports=True,
    ),
    "plant": Kind(
        parts=(
            _part("pot", (0, 0, -0.27), (0.72, 0.72, 0.46)),
            _part("ball", (0, 0, 0.22), (0.5, 0.5, 0.56), "leaf"),
            _part("ball", (-0.28, 0, 0.1), (0.44, 0.5, 0.3), "leaf"),
            _part("ball", (0.28, 0, 0.16), (0.44, 0.5, 0.34), "leaf"),
            _part("ball", (0, -0.25, 0.06), (0.4, 0.5, 0.24), "leaf"),
            _part("ball", (0, 0.25, 0.06), (0.4, 0.5, 0.24), "leaf"),
        ),
        sizes={
            ROOM_FLOOR: Sizes(width=(0.4, 0.75), height=(1.2, 1.8)),
            ROOM_TOP: Sizes(width=(0.3, 0.42), height=(1.1, 1.5)),
            **_same(Sizes(width=(0.16, 0.3), height=(1.1, 1.6)), TABLE, TABLE_TOP),
        },
    ),
    "chair": Kind(
        parts=(
            _part("box", (0, 0, 0.0), (1, 1, 0.07)),
            _part("box", (0, 0.46, 0.27), (1, 0.08, 0.46)),
            *_legs(0.48, 0.1, "wood"),
        ),
        sizes={ROOM_FLOOR: Sizes(width=(0.45, 0.7), height=(1.5, 2.0), depth=(0.85, 1.05))},
        chance=3.0,
    ),
    "stool": Kind(
        parts=(_part("tube", (0, 0, 0.44), (1, 1, 0.12)), *_legs(0.9, 0.1, "wood")),
        sizes={ROOM_FLOOR: Sizes(width=(0.38, 0.6), height=(0.9, 1.7))},
        supports=True,
        chance=2.0,
    ),
    "table": Kind(
        parts=(_part("box", (0, 0, 0.42), (1, 1, 0.16)), *_legs(0.86, 0.08, "wood")),
        sizes={ROOM_FLOOR: Sizes(width=(0.8, 1.3), height=(0.42, 0.7), depth=(0.5, 0.75))},
        supports=True,
        chance=6.0,
    ),
    "bin": Kind(
        parts=(_part("pail", (0, 0, -0.01), (0.96, 0.96, 0.98)), _part("tube", (0, 0, 0.46), (1, 1, 0.08), "contrast")),
        sizes={ROOM_FLOOR: Sizes(width=(0.32, 0.55), height=(1.1, 1.7))},
        chance=1.3,
    ),
    "clock": Kind(
        parts=(
            _part("disc", (0, 0.05, 0), (1, 0.9, 1), "contrast"),
            _part("disc", (0, -0.1, 0), (0.84, 0.7, 0.84)),
            _part("box", (0, -0.46, 0.13), (0.09, 0.08, 0.32), "contrast"),
            _part("box", (0.1, -0.46, 0), (0.26, 0.08, 0.09), "contrast"),
        ),
        sizes={
            ROOM_WALL: Sizes(width=(0.35, 0.65), height=(1, 1), depth=(0.12, 0.12)),
            TABLE_WALL: Sizes(width=(0.16, 0.3), height=(1, 1), depth=(0.12, 0.12)),
        },
        chance=0.8,
    ),
    "picture": Kind(
        parts=(
            _part("box", (0, 0.05, 0), (1, 0.9, 1), "wood"),
            _part("box", (0, -0.1, 0), (0.84, 0.7, 0.84)),
            _part("disc", (0.16, -0.46, 0.14), (0.22, 0.08, 0.22), "contrast"),
            _part("box", (0, -0.46, -0.26), (0.84, 0.08, 0.1), "contrast"),
        ),
        sizes={
            ROOM_WALL: Sizes(width=(0.5, 1.0), height=(0.65, 1.4), depth=(0.06, 0.06)),
            TABLE_WALL: Sizes(width=(0.2, 0.42), height=(0.65, 1.4), depth=(0.06, 0.06)),
        },
        chance=0.8,
    ),
    "vase": Kind(
        parts=(_part("vase", (0, 0, 0), (1, 1, 1)),),
        sizes={
            ROOM_FLOOR: Sizes(width=(0.3, 0.5), height=(1.5, 2.3)),
            ROOM_TOP: Sizes(width=(0.22, 0.32), height=(1.4, 2.0)),
            **_same(Sizes(width=(0.12, 0.2), height=(1.5, 2.3)), TABLE, TABLE_TOP),
        },
        chance=0.55,
    ),
    "bowl": Kind(
        parts=(_part("bowl", (0, 0, 0), (1, 1, 1)),),
        sizes={
            ROOM_TOP: Sizes(width=(0.35, 0.5), height=(0.45, 0.6)),
            **_same(Sizes(width=(0.16, 0.32), height=(0.42, 0.6)), TABLE, TABLE_TOP),
        },
        chance=1.5,
    ),
    "pillow": Kind(
        parts=(_part("cushion", (0, 0, 0), (1, 1, 1)),),
        sizes={ROOM_FLOOR: Sizes(width=(0.45, 0.8), height=(0.7, 0.95), depth=(0.32, 0.45))},
        chance=1.5,
    ),
    "bear": Kind(
        parts=(
            _part("ball", (0, 0, -0.16), (0.72, 0.8, 0.6)),
            _part("ball", (0, 0, 0.24), (0.6, 0.8, 0.42)),
            _part("ball", (-0.24, 0, 0.41), (0.22, 0.3, 0.18)),
            _part("ball", (0.24, 0, 0.41), (0.22, 0.3, 0.18)),
            _part("ball", (0, -0.38, 0.19), (0.28, 0.24, 0.16), "contrast"),
            _part("ball", (-0.38, -0.1, -0.08), (0.24, 0.4, 0.32)),
            _part("ball", (0.38, -0.1, -0.08), (0.24, 0.4, 0.32)),
            _part("ball", (-0.25, -0.2, -0.39), (0.34, 0.6, 0.22)),
            _part("ball", (0.25, -0.2, -0.39), (0.34, 0.6, 0.22)),
            _part("ball", (0, 0.4, -0.3), (0.2, 0.2, 0.1)),
        ),
        sizes={
            ROOM_FLOOR: Sizes(width=(0.4, 0.7), height=(1.15, 1.4), depth=(0.75, 0.9)),
            **_same(Sizes(width=(0.16, 0.26), height=(1.15, 1.4), depth=(0.75, 0.9)), TABLE, TABLE_TOP),
        },
    ),
    "car": Kind(
        parts=(
            _part("box", (0, 0, -0.14), (1, 0.9, 0.36)),
            _part("box", (-0.06, 0, 0.27), (0.54, 0.8, 0.46)),
            _part("box", (-0.06, -0.41, 0.24), (0.42, 0.02, 0.26), "contrast"),
            *(_part("disc", (x, y, -0.3), (0.26, 0.14, 0.4), "rubber") for x in (-0.28, 0.28) for y in (-0.43, 0.43)),
        ),
        sizes={
            ROOM_FLOOR: Sizes(width=(0.6, 1.0), height=(0.48, 0.6), depth=(0.45, 0.55)),
            TABLE: Sizes(width=(0.2, 0.36), height=(0.48, 0.6), depth=(0.45, 0.55)),
        },
    ),
}
"""Name of the kind → how it is built. The names are the nouns of the questions."""


def contrast(colour: str) -> Vector:
    """The paint of details on an object of that colour: light on dark objects, dark on light ones."""
    red, green, blue = COLOURS[colour]
    return (0.95, 0.95, 0.92) if 0.3 * red + 0.59 * green + 0.11 * blue < 0.45 else (0.12, 0.12, 0.14)


def paint_colour(paint: str, rgb: Vector, colour: str) -> Vector:
    """RGB of a part's paint on an object whose (slightly varied) colour is `rgb`."""
    if paint == "main":
        return rgb
    return contrast(colour) if paint == "contrast" else PAINTS[paint]

"""Unit shapes that household objects are put together from: what the renderer draws and what the layout measures.

Every shape fills the unit box [-0.5, 0.5]³ (x to the object's right, y away from its front, z up), so a part is a
shape, a centre and a size, and an object is its parts stretched to (width, height, depth).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEGMENTS = 24
"""Corners of a round cross-section."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One unit shape.

    Attributes:
        points: float64[P, 3] on the surface, extremes included: what projections and boxes are measured with.
        primitive: `box`, `ellipsoid` or `cylinder` (axis z) when the renderer has it, else `mesh`.
        turn: float64[3, 3], from the primitive's own frame to the shape's (identity for a mesh).
        faces: int[M, 3] into `points` for a mesh, empty otherwise.
    """

    points: Array
    primitive: str
    turn: Array
    faces: NDArray[np.int64]


def _circle() -> Array:
    angle = np.arange(SEGMENTS) * (2 * np.pi / SEGMENTS)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _lathe(profile: list[tuple[float, float]]) -> Shape:
    """Solid of revolution of a closed (radius, z) outline; the outline starts and ends on the axis."""
    inner = profile[1:-1]
    rings = [np.column_stack([_circle() * radius, np.full(SEGMENTS, z)]) for radius, z in inner]
    points = np.concatenate([[[0.0, 0.0, profile[0][1]]], *rings, [[0.0, 0.0, profile[-1][1]]]])
    top = len(points) - 1
    faces: list[tuple[int, int, int]] = []
    for s in range(SEGMENTS):
        t = (s + 1) % SEGMENTS
        faces.append((0, 1 + t, 1 + s))
        for ring in range(len(inner) - 1):
            low, high = 1 + ring * SEGMENTS, 1 + (ring + 1) * SEGMENTS
            faces += [(low + s, low + t, high + t), (low + s, high + t, high + s)]
        last = 1 + (len(inner) - 1) * SEGMENTS
        faces.append((top, last + s, last + t))
    return Shape(points=points, primitive="mesh", turn=np.eye(3), faces=np.array(faces))


def _grid(rows: int, columns: int) -> NDArray[np.int64]:
    """Faces of a grid of points that closes in both directions."""
    faces: list[tuple[int, int, int]] = []
    for r in range(rows):
        for c in range(columns):
            a, b = r * columns + c, r * columns + (c + 1) % columns
            d, e = ((r + 1) % rows) * columns + c, ((r + 1) % rows) * columns + (c + 1) % columns
            faces += [(a, e, d), (a, b, e)]
    return np.array(faces)


def _ring(thickness: float = 0.3) -> Shape:
    """A torus standing upright (its axis is y): the handle of a mug."""
    tube = thickness / 2
    around = np.linspace(0, 2 * np.pi, SEGMENTS, endpoint=False)
    across = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    u, v = np.meshgrid(around, across, indexing="ij")
    radius = 0.5 - tube + tube * np.cos(v)
    points = np.stack([radius * np.cos(u), 0.5 * np.sin(v), radius * np.sin(u)], axis=-1).reshape(-1, 3)
    return Shape(points=points, primitive="mesh", turn=np.eye(3), faces=_grid(SEGMENTS, 8))


def _cushion() -> Shape:
    """A pillow standing on its edge: square seen from the front, thick in the middle, thin at the rim."""
    steps = np.linspace(-0.5, 0.5, 11)
    x, z = (a.ravel() for a in np.meshgrid(steps, steps, indexing="ij"))
    bulge = 0.06 + 0.44 * ((1 - (2 * x) ** 2) * (1 - (2 * z) ** 2)) ** 0.5
    front, back = np.stack([x, -bulge, z], axis=1), np.stack([x, bulge, z], axis=1)
    count, side = len(front), len(steps)
    faces: list[tuple[int, int, int]] = []
    for i in range(side - 1):
        for k in range(side - 1):
            a, b, c, d = i * side + k, (i + 1) * side + k, (i + 1) * side + k + 1, i * side + k + 1
            faces += [(a, b, c), (a, c, d), (count + a, count + c, count + b), (count + a, count + d, count + c)]
    rim = [i * side for i in range(side)] + [(side - 1) * side + k for k in range(1, side)]
    rim += [i * side + side - 1 for i in range(side - 2, -1, -1)] + list(range(side - 2, 0, -1))
    for a, b in zip(rim, rim[1:] + rim[:1], strict=True):
        faces += [(a, count + a, count + b), (a, count + b, b)]
    return Shape(points=np.concatenate([front, back]), primitive="mesh", turn=np.eye(3), faces=np.array(faces))


def _primitive(name: str, points: Array, turn: Array | None = None) -> Shape:
    matrix = np.eye(3) if turn is None else turn
    return Shape(points=points @ matrix.T, primitive=name, turn=matrix, faces=np.empty((0, 3), dtype=np.int64))


def _ball_points() -> Array:
    rings = [np.column_stack([_circle() * 0.5 * np.cos(a), np.full(SEGMENTS, 0.5 * np.sin(a))]) for a in (-0.7, 0, 0.7)]
    return np.concatenate([*rings, [[0, 0, -0.5], [0, 0, 0.5]]])


def _tube_points() -> Array:
    return np.concatenate([np.column_stack([_circle() * 0.5, np.full(SEGMENTS, z)]) for z in (-0.5, 0.5)])


_BOX_POINTS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_Z_TO_Y = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])

SHAPES: dict[str, Shape] = {
    "box": _primitive("box", _BOX_POINTS),
    "ball": _primitive("ellipsoid", _ball_points()),
    "tube": _primitive("cylinder", _tube_points()),
    "disc": _primitive("cylinder", _tube_points(), _Z_TO_Y),
    "ring": _ring(),
    "cushion": _cushion(),
    "cup": _lathe([(0, -0.5), (0.46, -0.5), (0.5, 0.5), (0.42, 0.5), (0.38, -0.4), (0, -0.4)]),
    "pail": _lathe([(0, -0.5), (0.36, -0.5), (0.5, 0.5), (0.45, 0.5), (0.33, -0.42), (0, -0.42)]),
    "bowl": _lathe(
        [(0, -0.5), (0.22, -0.5), (0.24, -0.42), (0.4, -0.12), (0.5, 0.5), (0.45, 0.5), (0.34, 0.0), (0, -0.25)]
    ),
    "pot": _lathe([(0, -0.5), (0.36, -0.5), (0.46, 0.3), (0.5, 0.32), (0.5, 0.5), (0, 0.5)]),
    "shade": _lathe([(0, -0.5), (0.5, -0.5), (0.28, 0.5), (0, 0.5)]),
    "bottle": _lathe([(0, -0.5), (0.5, -0.5), (0.5, 0.1), (0.42, 0.22), (0.17, 0.34), (0.17, 0.5), (0, 0.5)]),
    "vase": _lathe(
        [
            (0, -0.5),
            (0.28, -0.5),
            (0.42, -0.3),
            (0.5, -0.1),
            (0.44, 0.1),
            (0.24, 0.28),
            (0.22, 0.36),
            (0.34, 0.5),
            (0.28, 0.5),
            (0.16, 0.34),
            (0, 0.2),
        ]
    ),
}
"""Every shape a part may name."""

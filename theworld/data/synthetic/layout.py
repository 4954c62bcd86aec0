"""Random household scenes as plain data: a room with objects in it and a camera. Nothing is drawn here.

`sample_scene` draws room and camera first and then places objects one by one, keeping only places where the object
is inside the image, large enough to be recognised, and not hidden behind what is there already.
"""

from __future__ import annotations

import colorsys
import math
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from theworld.data.synthetic.camera import Camera, Vector
from theworld.data.synthetic.kinds import COLOURS, KINDS, Place, Sizes
from theworld.data.synthetic.rooms import Block, Room, Setting, Surface, sample_room
from theworld.data.synthetic.shapes import SHAPES

Array = NDArray[np.float64]
Item = TypeVar("Item")

MIN_SIDE = 0.15
"""The longer side of an object's projection, as a share of the image."""
MIN_AREA = 0.008
"""The area of an object's projection, as a share of the image."""
MAX_SIDE = 0.6
MAX_OUTSIDE = 0.02
"""How far a projection may reach over the edge of the image, as a share of the image."""
MAX_OVERLAP = 0.2
"""How much of the smaller of two projections the other may cover."""
RAYS = 24
"""Rays of the camera tried for one place."""
ATTEMPTS = 60
"""Places tried for all objects of a scene together."""


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One object: what it is, and its 3-D box (centre, size = width × height × depth in metres, yaw in degrees)."""

    kind: str
    colour: str
    rgb: Vector
    centre: Vector
    size: Vector
    yaw: float

    @cached_property
    def transform(self) -> Array:
        """float64[3, 3] from the object's unit box (x, y, z) to metres, turned by its yaw."""
        sin, cos = math.sin(math.radians(self.yaw)), math.cos(math.radians(self.yaw))
        width, height, depth = self.size
        return np.array([[cos * width, -sin * depth, 0.0], [sin * width, cos * depth, 0.0], [0.0, 0.0, height]])

    @cached_property
    def corners(self) -> Array:
        """float64[8, 3], the corners of the 3-D box in the world frame."""
        return SHAPES["box"].points @ self.transform.T + np.array(self.centre)

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest corner, float64[3] each, of the upright box around it in the world frame."""
        return self.corners.min(axis=0), self.corners.max(axis=0)

    def surface(self) -> Array:
        """float64[P, 3], points on the surface of its parts in the world frame."""
        parts = [SHAPES[p.shape].points * np.array(p.size) + np.array(p.centre) for p in KINDS[self.kind].parts]
        return np.concatenate(parts) @ self.transform.T + np.array(self.centre)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that is needed to draw one image."""

    setting: Setting
    camera: Camera
    blocks: tuple[Block, ...]
    objects: tuple[SceneObject, ...]
    light: Vector
    """Direction in which the light falls."""


@dataclass
class _Layout:
    """A scene while it is filled; `views` are the objects' projections."""

    room: Room
    surfaces: list[Surface]
    objects: list[SceneObject] = field(default_factory=list)
    views: list[Array] = field(default_factory=list)


def sample_scene(rng: np.random.Generator) -> Scene:
    """A random scene of up to six objects; equal generators give equal scenes."""
    room = sample_room(rng)
    layout = _Layout(room=room, surfaces=list(room.surfaces))
    wanted = int(rng.integers(4, 7))
    for _ in range(ATTEMPTS):
        if len(layout.objects) == wanted:
            break
        _try_object(layout, rng)
    return Scene(
        setting=room.setting,
        camera=room.camera,
        blocks=room.blocks,
        objects=tuple(layout.objects),
        light=(float(rng.uniform(-0.6, 0.6)), float(rng.uniform(0.2, 0.7)), -1.0),
    )


def projected_box(points: Array, camera: Camera) -> Array:
    """float64[4]: x1, y1, x2, y2 of the points' projection, as shares of the image (0 to 1 inside it)."""
    pixels = camera.project(points, 1)
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


_PLACE_CHANCE: dict[Place, float] = {"floor": 0.5, "top": 0.4, "wall": 0.05}


def _try_object(layout: _Layout, rng: np.random.Generator) -> None:
    """Adds one random object at one random place, if it can be seen there."""
    surface = _pick(layout.surfaces, [_PLACE_CHANCE[s.place] for s in layout.surfaces], rng)
    fitting = [name for name, kind in KINDS.items() if (layout.room.setting, surface.place) in kind.sizes]
    name = _pick(fitting, [KINDS[name].chance for name in fitting], rng)
    if any(o.kind == name for o in layout.objects) and rng.random() < 0.7:
        return
    kind = KINDS[name]
    candidate = _place(name, kind.sizes[layout.room.setting, surface.place], surface, layout, rng)
    if candidate is None:
        return
    view = projected_box(candidate.corners, layout.room.camera)
    if not _visible(view, surface, layout) or _collides(candidate, surface, layout):
        return
    layout.objects.append(candidate)
    layout.views.append(view)
    if kind.supports and surface.place == "floor":
        layout.surfaces.append(_top_of(candidate, len(layout.objects) - 1))


def _pick(items: list[Item], chances: list[float], rng: np.random.Generator) -> Item:
    total = list(accumulate(chances))
    return items[bisect_right(total, rng.random() * total[-1], hi=len(items) - 1)]


def _place(name: str, sizes: Sizes, surface: Surface, layout: _Layout, rng: np.random.Generator) -> SceneObject | None:
    """An object of random size, colour and place on the surface; None if that place is not on it."""
    width = math.exp(rng.uniform(math.log(sizes.width[0]), math.log(sizes.width[1])))
    height = width * float(rng.uniform(*sizes.height))
    depth = width * (1.0 if sizes.depth is None else float(rng.uniform(*sizes.depth)))
    yaw = 0.0 if surface.place == "wall" else float(rng.uniform(-25, 25))
    sin, cos = math.sin(math.radians(abs(yaw))), math.cos(math.radians(yaw))
    half_x, half_y = (width * cos + depth * sin) / 2, (width * sin + depth * cos) / 2
    spot = _spot(surface, (half_x, half_y), height, layout.room.camera, rng)
    if spot is None:
        return None
    used = {o.colour for o in layout.objects if o.kind == name}
    free = [colour for colour in COLOURS if colour not in used]
    colour = free[int(rng.integers(len(free)))]
    return SceneObject(
        kind=name,
        colour=colour,
        rgb=_vary(COLOURS[colour], rng),
        centre=spot,
        size=(width, height, depth),
        yaw=yaw,
    )


def _spot(
    surface: Surface, half: tuple[float, float], height: float, camera: Camera, rng: np.random.Generator
) -> Vector | None:
    """A random centre for an object of that half extent (x, y): even over the image, or over a small top.

    None if the object does not fit on the surface, or if no sampled ray of the camera meets it.
    """
    low = np.array([surface.x[0] + half[0], surface.y[0] + half[1], surface.z[0] + height / 2])
    high = np.array([surface.x[1] - half[0], surface.y[1] - half[1], surface.z[1] + height / 2])
    if surface.place == "wall":
        low[1:], high[1:] = (surface.y[0] - half[1], surface.z[0]), (surface.y[0] - half[1], surface.z[1])
    if np.any(low > high):
        return None
    if surface.place == "top":
        point = rng.uniform(low, high)
    else:
        spread = math.tan(math.radians(camera.field_of_view) / 2)
        rays = np.column_stack([rng.uniform(-0.9 * spread, 0.9 * spread, (RAYS, 2)), np.ones(RAYS)]) @ camera.axes
        axis = 1 if surface.place == "wall" else 2
        reach = (low[axis] - camera.position[axis]) / rays[:, axis]
        points = np.array(camera.position) + reach[:, None] * rays
        points[:, axis] = low[axis]
        meets = np.flatnonzero((reach > 0) & ((low <= points) & (points <= high)).all(axis=1))
        if not len(meets):
            return None
        point = points[meets[0]]
    return float(point[0]), float(point[1]), float(point[2])


def _vary(rgb: Vector, rng: np.random.Generator) -> Vector:
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    return colorsys.hsv_to_rgb(
        (hue + rng.uniform(-0.01, 0.01)) % 1.0,
        min(1.0, saturation * rng.uniform(0.9, 1.0)),
        min(1.0, value * rng.uniform(0.92, 1.0)),
    )


def _collides(candidate: SceneObject, surface: Surface, layout: _Layout) -> bool:
    """Whether its upright bounding box meets another object's, or a piece of the room."""
    others = [o.bounds for i, o in enumerate(layout.objects) if i != surface.on]
    low, high = candidate.bounds
    lows = np.array([b[0] - 0.01 for b in others] + [b.low for b in layout.room.blocks])
    highs = np.array([b[1] + 0.01 for b in others] + [b.high for b in layout.room.blocks])
    return bool(((low + 1e-3 < highs) & (lows < high - 1e-3)).all(axis=1).any())


def _visible(view: Array, surface: Surface, layout: _Layout) -> bool:
    size = view[2:] - view[:2]
    if view.min() < -MAX_OUTSIDE or view.max() > 1 + MAX_OUTSIDE:
        return False
    if not MIN_SIDE <= size.max() <= MAX_SIDE or size.prod() < MIN_AREA:
        return False
    for index, other in enumerate(layout.views):
        shared = np.minimum(view[2:], other[2:]) - np.maximum(view[:2], other[:2])
        smaller = min(size.prod(), (other[2:] - other[:2]).prod())
        if index != surface.on and np.all(shared > 0) and shared.prod() > MAX_OVERLAP * smaller:
            return False
    return True


def _top_of(support: SceneObject, index: int) -> Surface:
    """The part of an object's top on which others may stand, whatever its yaw."""
    width, height, depth = support.size
    sin, cos = math.sin(math.radians(abs(support.yaw))), math.cos(math.radians(support.yaw))
    half_x, half_y = max(0.0, (width * cos - depth * sin) / 2), max(0.0, (depth * cos - width * sin) / 2)
    x, y, z = support.centre
    top = z + height / 2
    return Surface(place="top", x=(x - half_x, x + half_x), y=(y - half_y, y + half_y), z=(top, top), on=index)

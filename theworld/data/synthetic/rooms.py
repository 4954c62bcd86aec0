"""Random empty rooms: walls, floor, a tabletop or a shelf, the camera that looks at them, and where objects may stand.

Backgrounds are calm (little saturation, faint textures), so that objects stand out at 96 pixels.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from theworld.data.synthetic.camera import Camera, Vector
from theworld.data.synthetic.kinds import Place

Array = NDArray[np.float64]
Setting = Literal["room", "tabletop"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of the room that is no object (floor, wall, shelf): a box with centre and size (x, y, z) in metres."""

    centre: Vector
    size: Vector
    rgb: Vector
    material: str = "plain"
    casts_shadow: bool = False

    @cached_property
    def low(self) -> Array:
        """float64[3], its lowest corner."""
        return np.array(self.centre) - np.array(self.size) / 2

    @cached_property
    def high(self) -> Array:
        """float64[3], its highest corner."""
        return np.array(self.centre) + np.array(self.size) / 2


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A rectangle on which objects stand (or, for a wall, hang): ranges in metres."""

    place: Place
    x: tuple[float, float]
    y: tuple[float, float]
    z: tuple[float, float]
    on: int | None = None
    """Number of the object whose top it is."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """A place before any object is in it."""

    setting: Setting
    camera: Camera
    blocks: tuple[Block, ...]
    surfaces: tuple[Surface, ...]


def sample_room(rng: np.random.Generator) -> Room:
    """A whole room seen from two to three metres, or a tabletop seen from about one."""
    return _room(rng) if rng.random() < 0.5 else _tabletop(rng)


def _look_at(target: Array, distance: float, yaw: float, pitch: float, field_of_view: float) -> Camera:
    camera = Camera(position=(0.0, 0.0, 0.0), yaw=yaw, pitch=pitch, field_of_view=field_of_view)
    position = target - distance * camera.axes[2]
    return Camera(
        position=(float(position[0]), float(position[1]), float(position[2])),
        yaw=yaw,
        pitch=pitch,
        field_of_view=field_of_view,
    )


def _calm(rng: np.random.Generator, hue: tuple[float, float], saturation: float, value: tuple[float, float]) -> Vector:
    return colorsys.hsv_to_rgb(rng.uniform(*hue) % 1.0, rng.uniform(0.02, saturation), rng.uniform(*value))


def _walls(rng: np.random.Generator, back: float, half: float, scale: float) -> list[Block]:
    """Floor, back wall and, mostly, one side wall of a room whose back wall is at y = `back`."""
    wall = _calm(rng, (0.0, 1.0), 0.14, (0.66, 0.86))
    side_rgb = (wall[0] * 0.93, wall[1] * 0.93, wall[2] * 0.93)
    floor = _calm(rng, (0.05, 0.12), 0.34, (0.42, 0.66))
    material = str(rng.choice(["plain", "tiles", "planks", "checker"]))
    far = 4 * half
    blocks = [
        Block(centre=(0, 0, -0.05), size=(2 * far, 4 * back, 0.1), rgb=floor, material=material),
        Block(centre=(0, back + 0.05, scale), size=(2 * far, 0.1, 2 * scale + 0.1), rgb=wall),
        Block(centre=(0, back - 0.01, 0.04 * scale), size=(2 * far, 0.03, 0.08 * scale), rgb=(0.9, 0.9, 0.88)),
    ]
    side = int(rng.integers(-1, 2))
    if side:
        blocks.append(
            Block(centre=(side * (half + 0.05), 0, scale), size=(0.1, 2 * back, 2 * scale + 0.1), rgb=side_rgb)
        )
    return blocks


def _shelf(rng: np.random.Generator, back: float, x: float, z: float, size: Vector) -> tuple[Block, Surface]:
    rgb = _calm(rng, (0.05, 0.1), 0.5, (0.3, 0.5))
    width, depth, thick = size
    board = Block(centre=(x, back - depth / 2, z), size=(width, depth, thick), rgb=rgb)
    top = z + thick / 2
    surface = Surface(place="top", x=(x - width / 2, x + width / 2), y=(back - depth, back), z=(top, top), on=-1)
    return board, surface


def _room(rng: np.random.Generator) -> Room:
    half, back = float(rng.uniform(1.5, 2.2)), float(rng.uniform(2.4, 3.2))
    target = np.array([rng.uniform(-0.2, 0.2), back - rng.uniform(0.6, 1.0), rng.uniform(0.5, 0.8)])
    camera = _look_at(
        target,
        distance=float(rng.uniform(2.2, 3.0)),
        yaw=float(rng.uniform(-25, 25)),
        pitch=float(rng.uniform(-28, -10)),
        field_of_view=float(rng.uniform(48, 62)),
    )
    blocks = _walls(rng, back, half, 2.0)
    surfaces = [
        Surface(place="floor", x=(-half, half), y=(0.3, back), z=(0, 0)),
        Surface(place="wall", x=(-half, half), y=(back, back), z=(0.9, 1.9)),
    ]
    if rng.random() < 0.5:
        width = float(rng.uniform(0.7, 1.2))
        place_x = float(rng.uniform(-half + width / 2, half - width / 2) * 0.7)
        board, surface = _shelf(rng, back, place_x, float(rng.uniform(0.95, 1.25)), (width, 0.42, 0.05))
        blocks.append(board)
        surfaces.append(surface)
    return Room(setting="room", camera=camera, blocks=tuple(blocks), surfaces=tuple(surfaces))


def _tabletop(rng: np.random.Generator) -> Room:
    width, depth, height = float(rng.uniform(1.1, 1.7)), float(rng.uniform(0.6, 0.85)), 0.75
    back = float(rng.uniform(0.9, 1.1))
    front = back - 0.05 - depth
    target = np.array([rng.uniform(-0.08, 0.08), back - rng.uniform(0.25, 0.4), height + rng.uniform(0.08, 0.2)])
    camera = _look_at(
        target,
        distance=float(rng.uniform(0.95, 1.3)),
        yaw=float(rng.uniform(-25, 25)),
        pitch=float(rng.uniform(-35, -12)),
        field_of_view=float(rng.uniform(42, 54)),
    )
    blocks = _walls(rng, back, 1.3, 1.2)
    blocks.append(
        Block(
            centre=(0, (front + back - 0.05) / 2, height - 0.03),
            size=(width, depth, 0.06),
            rgb=_calm(rng, (0.04, 0.11), 0.55, (0.38, 0.72)),
            material=str(rng.choice(["plain", "planks"])),
            casts_shadow=True,
        )
    )
    surfaces = [
        Surface(place="floor", x=(-width / 2, width / 2), y=(front, back - 0.05), z=(height, height)),
        Surface(place="wall", x=(-1.0, 1.0), y=(back, back), z=(height + 0.15, height + 0.75)),
    ]
    if rng.random() < 0.5:
        length = float(rng.uniform(0.4, 0.8))
        place_x = float(rng.uniform(-0.3, 0.3))
        board, surface = _shelf(rng, back, place_x, height + float(rng.uniform(0.3, 0.42)), (length, 0.2, 0.025))
        blocks.append(board)
        surfaces.append(surface)
    return Room(setting="tabletop", camera=camera, blocks=tuple(blocks), surfaces=tuple(surfaces))

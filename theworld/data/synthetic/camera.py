"""The camera of a scene: where it stands, and how a point of the room lands in the image.

World frame: x right along the back wall, y towards the back wall, z up, metres. Camera frame: x right, y down,
z forward (the depth), metres. The image is square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera without roll.

    Attributes:
        position: Metres, world frame.
        yaw: Degrees; 0 looks along +y, positive turns to the left.
        pitch: Degrees; negative looks down.
        field_of_view: Degrees, edge to edge.
    """

    position: Vector
    yaw: float
    pitch: float
    field_of_view: float

    @cached_property
    def axes(self) -> Array:
        """float64[3, 3], rows right, down and forward of the camera in world coordinates."""
        yaw, pitch = math.radians(self.yaw), math.radians(self.pitch)
        sin, cos, rise, level = math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)
        return np.array([[cos, sin, 0.0], [-sin * rise, cos * rise, -level], [-sin * level, cos * level, rise]])

    def to_camera(self, points: Array) -> Array:
        """float64[P, 3] in the world frame → float64[P, 3] in the camera frame."""
        return (points - np.array(self.position)) @ self.axes.T

    def project(self, points: Array, image_size: int) -> Array:
        """float64[P, 3] in the world frame, all before the camera → float64[P, 2] pixels, x right and y down."""
        seen = self.to_camera(points)
        focal = image_size / 2 / math.tan(math.radians(self.field_of_view) / 2)
        return seen[:, :2] / np.maximum(seen[:, 2:], 1e-3) * focal + image_size / 2

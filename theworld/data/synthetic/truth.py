"""What is known exactly about a drawn scene, and its JSON form (a line of `scenes.jsonl`)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from theworld.data.pictures.masks import Rle, decode_rle
from theworld.data.synthetic.camera import Camera, Vector


@dataclass(frozen=True, kw_only=True)
class ObjectTruth:
    """One visible object.

    Attributes:
        kind: Noun, a key of `kinds.KINDS`.
        colour: A key of `kinds.COLOURS`.
        centre: Centre of the 3-D box in the world frame, metres, z up.
        camera: The same point in the camera frame, metres: x right, y down, z forward.
        size: Width, height and depth of the 3-D box along the object's own axes, metres.
        yaw: Degrees that the object is turned about z.
        box: x1, y1, x2, y2 of the visible mask in pixels, x2 and y2 exclusive.
        rle: The visible mask.
        pixels: Its area.
    """

    kind: str
    colour: str
    centre: Vector
    camera: Vector
    size: Vector
    yaw: float
    box: tuple[int, int, int, int]
    rle: Rle
    pixels: int

    @property
    def mask(self) -> NDArray[np.bool_]:
        """bool[H, W], the visible mask."""
        height, width = self.rle["size"]
        return decode_rle(self.rle, (width, height))


@dataclass(frozen=True, kw_only=True)
class SceneTruth:
    """One drawn scene: its name (also the image's, without extension), camera and visible objects."""

    id: str
    setting: str
    image_size: int
    camera: Camera
    objects: tuple[ObjectTruth, ...]

    def to_json(self) -> str:
        """One line of `scenes.jsonl`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> SceneTruth:
        """The scene that `to_json` wrote."""
        raw = json.loads(line)
        objects = []
        for item in raw["objects"]:
            vectors = {key: tuple(item[key]) for key in ("centre", "camera", "size", "box")}
            objects.append(ObjectTruth(**{**item, **vectors}))
        camera = Camera(**{**raw["camera"], "position": tuple(raw["camera"]["position"])})
        return cls(**{**raw, "camera": camera, "objects": tuple(objects)})

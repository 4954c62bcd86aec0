"""What the words of the questions mean: relations, lengths and clock directions, from the exact truth of a scene.

The tests recompute these definitions from `scenes.jsonl`:

    left / right          x of the 3-D centre in the camera frame
    above / below         z (height over the floor) of the centre in the world frame
    behind / front        depth of the centre in the camera frame
    big / small           volume of the 3-D box
    tall / short          its height (z)
    wide / thin           its width (along the object's own x axis)
    distance              between the two centres: in 3-D, horizontal = in the floor plane, vertical = |Δz|
    direction             clock hour of the second centre seen from the first, from above; 12 is away from the camera

A pair that differs by less than its entry in `MARGINS` is not asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from theworld.data.synthetic.truth import ObjectTruth, SceneTruth

MARGINS: dict[str, float] = {
    "x": 0.06,
    "z": 0.06,
    "depth": 0.08,
    "height": 1.2,
    "width": 1.2,
    "volume": 1.5,
    "distance": 0.05,
    "clock_distance": 0.12,
    "clock_degrees": 3.0,
}
"""Smallest difference asked about: x, z, depth and distances as a share of the pair's mean depth; height, width and
volume as a ratio; `clock_degrees` is the distance from the border between two hours."""

MEASURES: dict[str, Callable[[ObjectTruth], float]] = {
    "x": lambda o: o.camera[0],
    "z": lambda o: o.centre[2],
    "depth": lambda o: o.camera[2],
    "height": lambda o: o.size[1],
    "width": lambda o: o.size[0],
    "volume": lambda o: o.size[0] * o.size[1] * o.size[2],
}


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A word for one end of a measure: `sign` is +1 when more of it makes the word true."""

    measure: str
    sign: int
    phrase: str
    opposite: str
    comparative: str


RELATIONS: dict[str, Relation] = {
    word: Relation(measure=measure, sign=sign, phrase=phrase, opposite=opposite, comparative=comparative)
    for word, measure, sign, phrase, opposite, comparative in (
        ("left", "x", -1, "to the left of", "to the right of", "more to the left"),
        ("right", "x", 1, "to the right of", "to the left of", "more to the right"),
        ("above", "z", 1, "above", "below", "higher"),
        ("below", "z", -1, "below", "above", "lower"),
        ("behind", "depth", 1, "behind", "in front of", "further away"),
        ("front", "depth", -1, "in front of", "behind", "closer"),
        ("big", "volume", 1, "bigger than", "smaller than", "bigger"),
        ("small", "volume", -1, "smaller than", "bigger than", "smaller"),
        ("tall", "height", 1, "taller than", "shorter than", "taller"),
        ("short", "height", -1, "shorter than", "taller than", "shorter"),
        ("wide", "width", 1, "wider than", "thinner than", "wider"),
        ("thin", "width", -1, "thinner than", "wider than", "thinner"),
    )
}


def holds(scene: SceneTruth, word: str, a: int, b: int) -> bool:
    """Whether object `a` is left of / above / … object `b`."""
    relation = RELATIONS[word]
    measure = MEASURES[relation.measure]
    return relation.sign * (measure(scene.objects[a]) - measure(scene.objects[b])) > 0


def clock_degrees(a: ObjectTruth, b: ObjectTruth, yaw: float) -> float:
    """Direction from `a` to `b` seen from above, in degrees clockwise; 0 is away from a camera with that yaw."""
    x, y = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
    turn = np.radians(yaw)
    right, away = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    return float(np.degrees(np.arctan2(right, away)) % 360)


def clock_hour(degrees: float) -> int:
    """1 to 12."""
    return round(degrees / 30) % 12 or 12


def length(category: str, scene: SceneTruth, regions: tuple[int, ...]) -> float:
    """The true length in metres that a quantitative question (all but `direction`) asks for."""
    first, last = scene.objects[regions[0]], scene.objects[regions[-1]]
    if category == "width_data":
        return first.size[0]
    if category == "height_data":
        return first.size[1]
    delta = np.array(last.centre) - np.array(first.centre)
    if category == "vertical_distance_data":
        return float(abs(delta[2]))
    return float(np.linalg.norm(delta[:2] if category == "horizontal_distance_data" else delta))


def differ(a: ObjectTruth, b: ObjectTruth, measure: str) -> bool:
    """Whether the two are far enough apart in that measure to be asked about."""
    low, high = sorted((MEASURES[measure](a), MEASURES[measure](b)))
    if measure in ("x", "z", "depth"):
        return high - low >= MARGINS[measure] * (a.camera[2] + b.camera[2]) / 2
    return high >= MARGINS[measure] * low

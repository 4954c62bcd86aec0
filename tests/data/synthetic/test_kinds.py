"""Objects fill their boxes, meshes are closed, colours are told apart."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from theworld.data.synthetic.kinds import COLOURS, KINDS, PAINTS, contrast, paint_colour
from theworld.data.synthetic.layout import SceneObject
from theworld.data.synthetic.shapes import SHAPES


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_spans_the_unit_box(name: str):
    points = SHAPES[name].points
    np.testing.assert_allclose(points.min(axis=0), -0.5, atol=0.02)
    np.testing.assert_allclose(points.max(axis=0), 0.5, atol=0.02)


@pytest.mark.parametrize("name", [n for n, s in SHAPES.items() if s.primitive == "mesh"])
def test_meshes_are_closed_and_face_outwards(name: str):
    shape = SHAPES[name]
    edges = Counter((int(f[i]), int(f[(i + 1) % 3])) for f in shape.faces for i in range(3))
    assert set(edges.values()) == {1}
    assert all((b, a) in edges for a, b in edges)
    corners = shape.points[shape.faces]
    volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert 0.05 < volume < 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_an_object_fill_its_box_exactly(kind: str):
    """The stated size is the size that is drawn: no part sticks out, and each side of the box is touched."""
    thing = SceneObject(kind=kind, colour="red", rgb=COLOURS["red"], centre=(1, 2, 3), size=(2.0, 4.0, 3.0), yaw=0)
    points = thing.surface() - np.array([1, 2, 3])
    np.testing.assert_allclose(points.min(axis=0), [-1.0, -1.5, -2.0], atol=0.07)
    np.testing.assert_allclose(points.max(axis=0), [1.0, 1.5, 2.0], atol=0.07)
    assert np.all(np.abs(points) <= np.array([1.0, 1.5, 2.0]) + 1e-6)


def test_yaw_turns_counterclockwise_about_the_centre():
    thing = SceneObject(kind="box", colour="red", rgb=COLOURS["red"], centre=(0, 0, 1), size=(4.0, 2.0, 1.0), yaw=90)
    np.testing.assert_allclose(thing.bounds[0], [-0.5, -2.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(thing.transform @ [0.5, 0, 0], [0, 2.0, 0], atol=1e-9)


def test_there_are_enough_kinds_and_distinct_colours():
    assert len(KINDS) >= 12
    assert len(COLOURS) >= 8
    gaps = {(a, b): np.abs(np.subtract(COLOURS[a], COLOURS[b])).sum() for a, b in combinations(COLOURS, 2)}
    assert min(gaps.values()) > 0.3, min(gaps, key=gaps.get)


def test_paints():
    assert contrast("black")[0] > 0.9
    assert contrast("yellow")[0] < 0.2
    assert paint_colour("main", (0.1, 0.2, 0.3), "red") == (0.1, 0.2, 0.3)
    assert paint_colour("wood", (0.1, 0.2, 0.3), "red") == PAINTS["wood"]
    used = {part.paint for kind in KINDS.values() for part in kind.parts}
    assert used <= {"main", "contrast", *PAINTS}
    assert all(any(part.paint == "main" for part in kind.parts) for kind in KINDS.values())

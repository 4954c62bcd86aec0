"""What the renderer says is seen, against independent geometry."""

from __future__ import annotations

import colorsys
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from theworld.data.synthetic.camera import Camera
from theworld.data.synthetic.kinds import COLOURS
from theworld.data.synthetic.layout import Scene, SceneObject, sample_scene
from theworld.data.synthetic.render import SceneRenderer, render_scene
from theworld.data.synthetic.rooms import Block


def project_by_hand(point, camera: Camera, size: int) -> tuple[float, float, float]:
    """Pixel x, pixel y and depth, by rotating first about z and then about x (not the way `Camera` does it)."""
    x, y, z = np.subtract(point, camera.position)
    yaw, pitch = -np.radians(camera.yaw), -np.radians(camera.pitch)
    x, y = x * np.cos(yaw) - y * np.sin(yaw), x * np.sin(yaw) + y * np.cos(yaw)
    y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
    focal = 0.5 * size / np.tan(0.5 * np.radians(camera.field_of_view))
    return size / 2 + focal * x / y, size / 2 - focal * z / y, y


def ball(x: float, y: float, colour: str, diameter: float = 0.5) -> SceneObject:
    return SceneObject(
        kind="ball", colour=colour, rgb=COLOURS[colour], centre=(x, y, 1.0), size=(diameter,) * 3, yaw=0.0
    )


def scene_of(*objects: SceneObject) -> Scene:
    camera = Camera(position=(0.0, 0.0, 1.0), yaw=0.0, pitch=0.0, field_of_view=60.0)
    wall = Block(centre=(0, 8, 0), size=(30, 0.1, 30), rgb=(0.7, 0.7, 0.7))
    return Scene(setting="room", camera=camera, blocks=(wall,), objects=objects, light=(0.0, 0.3, -1.0))


def test_truth_agrees_with_a_projection_by_hand(drawn):
    inside = 0
    for _, scene in drawn:
        for thing in scene.objects:
            x, y, depth = project_by_hand(thing.centre, scene.camera, scene.image_size)
            x1, y1, x2, y2 = thing.box
            inside += x1 <= x <= x2 and y1 <= y <= y2
            assert depth == pytest.approx(thing.camera[2], abs=1e-3)
            right = thing.camera[0] / thing.camera[2]
            assert (x - scene.image_size / 2) * right >= 0 or abs(right) < 1e-3
    total = sum(len(scene.objects) for _, scene in drawn)
    assert inside == total > 120


def test_box_and_area_are_those_of_the_mask(drawn):
    for rgb, scene in drawn:
        assert rgb.shape == (96, 96, 3)
        assert rgb.dtype == np.uint8
        taken = np.zeros((96, 96), dtype=int)
        for thing in scene.objects:
            rle = {**thing.rle, "counts": thing.rle["counts"].encode()}
            x, y, width, height = coco_mask.toBbox(rle)
            assert thing.box == (x, y, x + width, y + height)
            assert thing.pixels == coco_mask.area(rle) == thing.mask.sum() >= 0.004 * 96 * 96
            taken += thing.mask
        assert taken.max() == 1


def test_objects_are_big_enough_and_mostly_visible(renderer):
    """Each object's visible mask, against the mask it has when it is drawn alone."""
    shares, sides = [], []
    for seed in range(30):
        scene = sample_scene(np.random.default_rng(seed))
        seen = {thing.centre: thing for thing in render_scene(renderer, scene)[1]}
        for thing in scene.objects:
            (alone,) = render_scene(renderer, replace(scene, objects=(thing,)))[1]
            if alone.centre in seen:
                shares.append(seen[alone.centre].pixels / alone.pixels)
                x1, y1, x2, y2 = seen[alone.centre].box
                sides.append(max(x2 - x1, y2 - y1))
    assert len(shares) > 100
    assert min(shares) > 0.6
    assert min(sides) >= 9
    assert np.quantile(sides, 0.1) >= 12


def test_a_ball_is_drawn_where_and_as_large_as_geometry_says(renderer):
    (seen,) = render_scene(renderer, scene_of(ball(0.5, 3.0, "red")))[1]
    focal = 48 / np.tan(np.radians(30))
    x1, y1, x2, y2 = seen.box
    assert (x1 + x2) / 2 == pytest.approx(48 + focal * 0.5 / 3, abs=1.0)
    assert (y1 + y2) / 2 == pytest.approx(48, abs=1.0)
    assert y2 - y1 == pytest.approx(focal * 0.5 / 3, abs=1.5)
    assert seen.camera == (0.5, 0.0, 3.0)


def test_the_nearer_object_hides_the_farther(renderer):
    near, far = ball(0.0, 2.0, "red", 0.3), ball(0.35, 4.0, "blue", 0.8)
    rgb, (front, back) = render_scene(renderer, scene_of(near, far))
    (alone,) = render_scene(renderer, scene_of(far))[1]
    overlap = front.mask & alone.mask
    assert overlap.sum() > 30
    assert not (back.mask & front.mask).any()
    np.testing.assert_array_equal(back.mask, alone.mask & ~front.mask)
    assert rgb[overlap].mean(axis=0).argmax() == 0
    hidden = render_scene(renderer, scene_of(ball(0.0, 2.0, "red", 0.5), ball(0.0, 4.0, "blue", 0.4)))[1]
    assert [thing.colour for thing in hidden] == ["red"]


@pytest.mark.parametrize("colour", [c for c in COLOURS if c not in ("black", "white")])
def test_colours_are_seen_as_named(renderer, colour: str):
    rgb, (seen,) = render_scene(renderer, scene_of(ball(0.0, 2.0, colour)))
    hue = colorsys.rgb_to_hsv(*(rgb[seen.mask].mean(axis=0) / 255))[0]
    expected = colorsys.rgb_to_hsv(*COLOURS[colour])[0]
    assert min(abs(hue - expected), 1 - abs(hue - expected)) < 0.03


def test_drawing_twice_and_with_another_renderer_gives_the_same_bytes(renderer):
    scene, other = (sample_scene(np.random.default_rng(seed)) for seed in (1, 2))
    rgb, truth = render_scene(renderer, scene)
    different, _ = render_scene(renderer, other)
    assert (different != rgb).any()
    second = SceneRenderer(96)
    for again in (renderer, second):
        repeated, repeated_truth = render_scene(again, scene)
        np.testing.assert_array_equal(repeated, rgb)
        assert repeated_truth == truth
    second.close()
    np.testing.assert_array_equal(render_scene(renderer, scene)[0], rgb)


def test_a_bad_image_size_is_refused():
    with pytest.raises(ValueError, match="image_size is 8 pixels; expected 16 to 1024"):
        SceneRenderer(8)


@pytest.mark.skipif(sys.platform != "linux", reason="MUJOCO_GL is set on Linux only")
def test_mujoco_imported_before_without_a_headless_backend_is_refused():
    code = "import mujoco; import theworld.data.synthetic.render"
    bare = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"}
    refused = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=False)
    assert "set MUJOCO_GL=egl in the environment" in refused.stderr
    subprocess.run([sys.executable, "-c", code], env={**bare, "MUJOCO_GL": "egl"}, check=True)

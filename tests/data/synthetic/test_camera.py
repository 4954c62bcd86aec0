"""The pinhole camera, in numbers done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from theworld.data.synthetic.camera import Camera


def test_a_level_camera_projects_as_by_hand():
    camera = Camera(position=(1.0, 0.0, 2.0), yaw=0, pitch=0, field_of_view=90)
    points = np.array([[1.0, 4.0, 2.0], [2.0, 4.0, 2.0], [1.0, 4.0, 3.0]])
    np.testing.assert_allclose(camera.to_camera(points), [[0, 0, 4], [1, 0, 4], [0, -1, 4]], atol=1e-12)
    np.testing.assert_allclose(camera.project(points, 80), [[40, 40], [50, 40], [40, 30]], atol=1e-9)


def test_yaw_turns_left_and_pitch_turns_up():
    left = Camera(position=(0, 0, 0), yaw=90, pitch=0, field_of_view=60)
    np.testing.assert_allclose(left.to_camera(np.array([[-3.0, 0, 0]])), [[0, 0, 3]], atol=1e-12)
    down = Camera(position=(0, 0, 0), yaw=0, pitch=-90, field_of_view=60)
    np.testing.assert_allclose(down.to_camera(np.array([[0, 0, -3.0]])), [[0, 0, 3]], atol=1e-12)


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (17, -25), (-40, 10), (180, -60)])
def test_axes_are_right_handed_and_without_roll(yaw: float, pitch: float):
    axes = Camera(position=(0, 0, 0), yaw=yaw, pitch=pitch, field_of_view=50).axes
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    assert axes[0, 2] == 0

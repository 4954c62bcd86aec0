"""Labels are read by a person and by the model: none hides another, they show on any background, at any photo size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from theworld.data.pictures import drawing
from theworld.data.pictures.drawing import PALETTE, Region, draw_regions, region_colours

SIZE = (640, 480)


@pytest.fixture
def places(monkeypatch):
    """Where labels are put, as (left, top, right, bottom), last included."""
    found = []
    place = drawing._place

    def recorded(rect, width, height, *others):
        left, top = place(rect, width, height, *others)
        found.append((left, top, left + width - 1, top + height - 1))
        return left, top

    monkeypatch.setattr(drawing, "_place", recorded)
    return found


def _draw(boxes, size=SIZE, background=(90, 90, 90)):
    image = Image.new("RGB", size, background)
    return draw_regions(image, [Region(number, box, None, 0) for number, box in enumerate(boxes)])


def _shared(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
    return max(width, 0) * max(height, 0)


def test_labels_of_boxes_on_top_of_one_another_stay_apart(places):
    _draw([(200.0 + i, 150.0 + i, 460.0 - i, 330.0 - i) for i in range(14)])
    assert len(places) == 14
    pairs = [(i, j) for i in range(14) for j in range(i)]
    assert all(_shared(places[i], places[j]) == 0 for i, j in pairs)
    # Control: labels above and left of their box, where a label goes first, would lie on one another.
    first = [(200 + i, 150 + i - 20, 290 + i, 150 + i) for i in range(14)]
    assert any(_shared(first[i], first[j]) for i, j in pairs)


@settings(max_examples=30, deadline=None)
@given(
    corners=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 440), st.integers(8, 600), st.integers(8, 440))),
    size=st.sampled_from([(640, 480), (96, 96), (41, 300)]),
)
def test_every_label_is_whole_inside_the_image(corners, size):
    boxes = []
    for x, y, width, height in corners:
        left, top = x % (size[0] - 8), y % (size[1] - 8)
        boxes.append((left, top, min(left + width, 1.25 * size[0]), min(top + height, 1.25 * size[1])))
    with pytest.MonkeyPatch.context() as patch:
        found = []
        place = drawing._place
        patch.setattr(
            drawing,
            "_place",
            lambda rect, width, height, *others: (
                found.append((*(corner := place(rect, width, height, *others)), width, height)) or corner
            ),
        )
        _draw(boxes, size)
    for left, top, width, height in found:
        assert left >= 0
        assert top >= 0
        assert left + width <= size[0]
        assert top + height <= size[1]


@pytest.mark.parametrize("background", [*PALETTE, (128, 128, 128)])
def test_a_label_stands_out_from_any_background(places, background):
    drawn = np.array(_draw([(100.0, 100.0, 300.0, 300.0)] * 1 + [(350.0, 100.0, 500.0, 300.0)], background=background))
    for number, (left, top, right, bottom) in enumerate(places):
        fill, ink = region_colours(number)
        tag = drawn[top : bottom + 1, left : right + 1].reshape(-1, 3)
        rim = drawn[top, left : right + 1]
        assert (rim == ink).all()  # so a label on its own colour has an edge
        assert (tag == ink).all(axis=1).sum() > 100
        assert (tag == fill).all(axis=1).sum() > 300


def test_ink_can_be_read_on_every_colour():
    for number in range(len(PALETTE)):
        fill, ink = region_colours(number)
        assert fill == PALETTE[number]
        brightness = [float(np.dot((0.299, 0.587, 0.114), colour)) for colour in (fill, ink)]
        assert abs(brightness[0] - brightness[1]) > 100


def test_labels_of_a_large_photo_are_large_enough_once_it_is_shrunk(places):
    _draw([(400.0, 400.0, 3000.0, 2500.0)], size=(4000, 3000))
    left, top, right, bottom = places[0]
    assert (bottom - top) * 896 / 3000 > 20
    assert (right - left) * 896 / 4000 > 60

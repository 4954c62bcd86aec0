"""Region names, spelled out; masks refused before decoding; drawings that can be read and never leave the image."""

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from theworld.data.pictures.drawing import PALETTE
from theworld.data.pictures.masks import check_rle, decode_rle
from theworld.data.pictures.regions import Region, check_box, draw_regions, global_regions

A, B, C = (1.0, 2.0, 9.0, 9.0), (10.0, 2.0, 19.0, 9.0), (20.0, 2.0, 29.0, 9.0)


def test_names_follow_boxes_over_the_whole_conversation():
    turns = [
        ("Is <mask> <depth> left of <mask>?", "Region [0] is left of Region [1]."),
        ("And <mask><depth>, <mask> <depth> or <mask>?", "Region [2] is; Region [0] and region [1] are not."),
        ("How many?", "Three."),
    ]
    named, regions = global_regions(turns, [B, A, C, B, A])
    assert named == (
        ("Is Region [0] left of Region [1]?", "Region [0] is left of Region [1]."),
        ("And Region [2], Region [0] or Region [1]?", "Region [1] is; Region [2] and Region [0] are not."),
        ("How many?", "Three."),
    )
    assert [(r.index, r.box, r.first_turn) for r in regions] == [(0, B, 0), (1, A, 0), (2, C, 1)]


def test_masks_go_with_the_first_mention_of_their_box():
    rles = [{"size": [2, 2], "counts": [4]}, {"size": [2, 2], "counts": [0, 4]}, {"size": [2, 2], "counts": [1, 3]}]
    _, regions = global_regions([("<mask> <mask> <mask>", "x")], [A, B, A], rles)
    assert [r.rle for r in regions] == rles[:2]


@pytest.mark.parametrize(
    ("turns", "boxes", "message"),
    [
        ([("<mask>", "Region [1] is.")], [A], r"answer 0 names 'Region \[1\]', but its question mentions 1 regions"),
        ([("<mask> <mask>", "x"), ("What?", "Region [0].")], [A, B], "answer 1 names .* mentions 0 regions"),
        ([("<mask>", "x")], [A, B], "found 1 <mask> in the questions and 2 boxes"),
        ([("Region [0] and <mask>", "x")], [A], r"question 0 says 'Region \[0\]' itself"),
        ([("<depth> <mask>", "x")], [A], "<depth> that follows no <mask>"),
        ([("<mask>", "It is <mask>.")], [A], "answer 0 holds <mask>"),
    ],
)
def test_conversations_that_cannot_be_named(turns, boxes, message):
    with pytest.raises(ValueError, match=message):
        global_regions(turns, boxes)


def test_rle_decodes_like_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((13, 17)) < 0.3
        rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        packed = {"size": [13, 17], "counts": rle["counts"].decode()}
        flat = np.concatenate([[False], mask.T.reshape(-1), [True]])
        edges = np.flatnonzero(np.diff(flat))
        runs = np.diff(np.concatenate([[0], edges])).tolist()
        runs += [mask.size - sum(runs)] if sum(runs) < mask.size else []
        assert np.array_equal(decode_rle(packed, (17, 13)), mask)
        assert np.array_equal(decode_rle({"size": [13, 17], "counts": runs}, (17, 13)), mask)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [40000, 40000], "counts": "PPYo1"}, "size is .40000, 40000., expected .* = .13, 17."),
        ({"size": [13, 17], "counts": [100]}, "runs add up to 100, expected height x width = 221"),
        ({"size": [13, 17], "counts": [-10, 231]}, "the mask is damaged"),
        ({"size": [13, 17], "counts": "4"}, "runs add up to 4"),
        ({"size": [13, 17], "counts": "é"}, "which COCO's encoding never writes"),
        ({"size": [13, 17], "counts": "P"}, "end in the middle of a number"),
    ],
)
def test_bad_masks_are_refused(rle, message):
    with pytest.raises(ValueError, match=message):
        check_rle(rle, (17, 13))


def _regions(boxes, rles=None):
    return [Region(i, box, rles[i] if rles else None, 0) for i, box in enumerate(boxes)]


@pytest.mark.parametrize("size", [(96, 96), (640, 480)])
def test_boxes_are_drawn_where_they_are_in_their_colours(size):
    width, height = size
    image = Image.new("RGB", size, (90, 90, 90))
    boxes = [(0.1 * width, 0.5 * height, 0.4 * width, 0.9 * height), (0.5 * width, 0.5 * height, width, height)]
    drawn = draw_regions(image, _regions(boxes))
    assert image.getcolors() == [(width * height, (90, 90, 90))]  # the original is untouched
    for number, box in enumerate(boxes):
        x0, y0, x1, y1 = check_box(box, size)
        for x, y in ((x0, y1 - 3), (x1, y1 - 3), (x1 - 3, y1), ((x0 + x1) // 2, y1)):
            assert drawn.getpixel((x, y)) == PALETTE[number]
        assert drawn.getpixel(((x0 + x1) // 2, (y0 + y1) // 2 + 5)) == (90, 90, 90)
    assert drawn.tobytes() == draw_regions(image, _regions(boxes)).tobytes()


@pytest.mark.parametrize("number", range(13))
def test_every_label_is_inside_and_differs(number):
    """A label shows in a box that fills the image, on every colour, and two numbers never look the same."""
    image = Image.new("RGB", (96, 96), PALETTE[number % len(PALETTE)])
    box = (0.0, 0.0, 96.0, 96.0)
    drawn = draw_regions(image, [Region(number, box, None, 0)])
    other = draw_regions(image, [Region(number + len(PALETTE), box, None, 0)])
    assert drawn.size == image.size
    changed = np.any(np.array(drawn) != np.array(image), axis=2)
    assert changed.sum() > 20
    assert drawn.tobytes() != other.tobytes()


def test_masks_tint_and_outline():
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[30:50, 10:60] = 1
    rle = coco.encode(np.asfortranarray(mask))
    rles = [{"size": [60, 80], "counts": rle["counts"].decode()}]
    image = Image.new("RGB", (80, 60), (100, 100, 100))
    drawn = draw_regions(image, _regions([(10.0, 30.0, 60.0, 50.0)], rles), style="mask")
    assert drawn.getpixel((10, 45)) == PALETTE[0]
    assert drawn.getpixel((40, 42)) == tuple(round(0.7 * 100 + 0.3 * c) for c in PALETTE[0])
    assert drawn.getpixel((70, 42)) == (100, 100, 100)
    with pytest.raises(ValueError, match=r"Region \[0\] has no mask"):
        draw_regions(image, _regions([(10.0, 30.0, 60.0, 50.0)]), style="mask")
    with pytest.raises(ValueError, match="region style is 'dots'"):
        draw_regions(image, [], style="dots")


def test_boxes_are_clipped_and_outsiders_refused():
    assert check_box((-5.0, -5.0, 10.0, 37.5), (40, 30)) == (0, 0, 9, 29)
    assert check_box((39.0, 29.0, 50.0, 36.0), (40, 30)) == (39, 29, 39, 29)
    for box in ((-5.0, -5.0, 10.0, 38.0), (20.0, 10.0, 3800.0, 2800.0), (-11.0, 0.0, 12.0, 20.0)):
        with pytest.raises(ValueError, match=r"reaches \d+% beyond its 40 x 30 image.* in the pixels of another size"):
            check_box(box, (40, 30))
    for box in ((40.0, 0.0, 60.0, 10.0), (5.0, 5.0, 5.0, 9.0), (9.0, 5.0, 5.0, 9.0), (-9.0, -9.0, -1.0, -1.0)):
        with pytest.raises(ValueError, match="covers less than a pixel of its 40 x 30 image"):
            draw_regions(Image.new("RGB", (40, 30)), _regions([box]))

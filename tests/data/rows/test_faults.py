"""The fault table: what can be wrong with a row or its image, what its verdict is, and what is no fault.

Every case breaks the middle one of three rows and finds the other two untouched; without the break all three are ok.
"""

import io
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.png import chunks, write_grey
from theworld.data.indexing.file import index_file
from theworld.data.rows import json_array, json_rows
from theworld.data.rows.faults import CODES

BOXES = [[2, 3, 12, 20], [20, 10, 38, 28]]
GOOD_RLE = {"size": [30, 40], "counts": [600, 10, 590]}


@pytest.fixture
def index(write_osd, make_row, processor, tmp_path):
    """Index three rows of which the middle one is changed; returns (index, path of the middle image)."""

    def run(changes=None, *, image=None, raw=None, row_format="osd", **settings):
        rows = [make_row(i, rle=[GOOD_RLE] * 2) for i in range(3)]
        rows[1] = {key: value for key, value in (rows[1] | (changes or {})).items() if value is not None}
        path, images = write_osd(rows, "rows.json")
        if raw is not None:
            texts = [json.dumps(row) for row in rows]
            texts[1] = raw(texts[1])
            path.write_text(f"[{', '.join(texts)}]")
        middle = images / "img1.png"
        if image is not None:
            image(middle)
        settings = {"max_seq_length": 400, "num_workers": 0, "progress": False} | settings
        output = tmp_path / "index.parquet"
        return index_file(path, image_folder=images, output=output, processor=processor, **settings)

    return run


def _codes(index):
    return [verdict.split(":")[0] for verdict in index.verdicts]


def _pixels(mode="RGB"):
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)).convert(mode)


def _saved(image, kind="PNG", **options):
    return lambda path: image.save(path, kind, **options)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _grey16(path):
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)).save(path)


def _talk(*messages):
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(messages)]


ASKED = "Is <mask> left of <mask>?"
IMAGES = {
    "missing": (lambda path: path.unlink(), "missing image", "found no image 'img1'"),
    "truncated": (_cut, "unreadable image", "img1.png: cannot be decoded"),
    "0 bytes": (lambda path: path.write_bytes(b""), "unreadable image", "not a readable JPEG/PNG/WEBP"),
    "bit-flipped, found by PNG's checksum": (_flip, "unreadable image", "img1.png: cannot be decoded"),
    "16-bit grey": (_grey16, "unreadable image", "found mode 'I;16', expected 8 bits"),
    "another format under this name": (_saved(_pixels(), "GIF"), "unreadable image", "not a readable JPEG/PNG/WEBP"),
    "13000 x 13000 pixels": (write_grey(13000), "too large", "169000000 pixels, expected at most 40000000"),
    "beyond Pillow's own limit": (write_grey(13400), "too large", "decompression bomb"),
    "of another size than the boxes": (_saved(_pixels().resize((20, 15))), "bad region", "its 20 x 15 image"),
}
ROWS = {
    "box outside": ({"bbox": [BOXES[0], [50, 3, 60, 20]]}, "bad region", r"box \(50.0, .* its 40 x 30 image"),
    "box without area": ({"bbox": [BOXES[0], [9, 3, 9, 20]]}, "bad region", "less than a pixel"),
    "region that the question lacks": (
        {"conversations": _talk(ASKED, "Region [2]")},
        "bad region",
        "answer 0 names 'Region .2.'",
    ),
    "more masks than boxes": ({"bbox": BOXES[:1]}, "mask count", "found 2 <mask> .* and 1 entries in bbox"),
    "fewer RLEs than boxes": ({"rle": [GOOD_RLE]}, "mask count", "found 1 entries in rle and 2 in bbox"),
    "no messages": ({"conversations": []}, "bad conversation", "found 0 messages"),
    "one-sided": ({"conversations": _talk(ASKED)}, "bad conversation", "found 1 messages, .* in pairs"),
    "empty question": ({"conversations": _talk(" ", "Yes")}, "bad conversation", "message 0 from 'human' is empty"),
    "two humans": (
        {"conversations": [{"from": "human", "value": ASKED}] * 2},
        "bad conversation",
        "message 1 is from 'human', expected 'gpt'",
    ),
    "control token": ({"conversations": _talk(ASKED + "<eos>", "Yes")}, "bad conversation", "'<eos>', which is a con"),
    "empty answer": ({"conversations": _talk(ASKED, " ")}, "no target tokens", "message 1 from 'gpt' is empty"),
    "longer than max_seq_length": (
        {"conversations": _talk(ASKED + "x" * 500, "Yes")},
        "too long",
        "needs 5.. tokens, expected at most max_seq_length=400",
    ),
    "duplicate id": ({"id": "row-0"}, "duplicate id", "row 1 has the id of row 0"),
    "no filename": ({"filename": None}, "malformed", "key 'filename' is missing"),
    "name longer than a file's": ({"filename": "x" * 300}, "missing image", "cannot be looked up .*too long"),
    "box in another image's pixels": (
        {"bbox": [[2, 3, 1200, 900], BOXES[1]]},
        "bad region",
        "beyond its 40 x 30 image",
    ),
    "path out of the folder": ({"filename": "../img0"}, "missing image", "plain path below the image folder"),
    "infinite box": ({"bbox": [[2, 3, 12, float("inf")], BOXES[1]]}, "malformed", "Infinity is no JSON number"),
    "RLE of another size": ({"rle": [GOOD_RLE, {"size": [40, 30], "counts": [1200]}]}, "bad mask", r"\[40, 30\], exp"),
    "RLE of 40000 x 40000": ({"rle": [GOOD_RLE, {"size": [40000, 40000], "counts": "0"}]}, "bad mask", "mask size is"),
}
MASKS = {
    "runs that do not add up": ([600, 10, 589], "runs add up to 1199, expected height x width = 1200"),
    "negative run": ([700, -10, 510], "runs add up to 1200"),
    "runs beyond any image": ([1200, 10**30], f"runs add up to {10**30 + 1200}"),
    "compressed runs that do not add up": ("^V100", "runs add up to"),
    "number cut off": ("ooo", "end in the middle of a number"),
    "characters of no encoding": ("a~", "hold '~'"),
}
TEXTS = {
    "not JSON": (lambda text: text.replace('"id":', '"id"'), "not valid JSON"),
    "cut": (lambda text: text[:60], "is not closed where the next begins"),
    "duplicate key": (lambda text: text.replace('"id":', '"id": "a", "id":'), "key 'id' occurs twice"),
    "NaN": (lambda text: text.replace("12, 20", "NaN, 20"), "NaN is no JSON number"),
    "too deep": (lambda text: text.replace('"row-1"', "[" * 5000 + "]" * 5000), "recursion"),
    "half of a surrogate pair": (lambda text: text.replace("row-1", r"a\ud800b"), r"surrogate pair \('.ud800'\)"),
    "not UTF-8": (lambda text: text.replace("row-1", "\udcff"), "not valid JSON"),
    "no object": (lambda text: "7", "found b',7,'"),
    "an object in a string": (lambda text: json.dumps(text), "rows must be the objects"),
}


def _check(index, code, message):
    assert _codes(index) == ["ok", code, "ok"], index.verdicts
    assert code in CODES
    assert re.search(message, index.verdicts[1]), index.verdicts[1]
    assert index.eligible.tolist() == [0, 2]
    for column in ("kept_turns", "num_images", "text_tokens", "target_tokens", "image_tokens", "world_tokens"):
        assert index.column(column)[1] == 0


@pytest.mark.parametrize("style", ["box", "mask"])
def test_without_a_fault_every_row_is_ok(index, style):
    found = index(region_style=style)
    assert _codes(found) == ["ok"] * 3
    assert found.column("width").tolist() == [40] * 3
    assert found.column("height").tolist() == [30] * 3
    assert found.column("regions").tolist() == [2] * 3


@pytest.mark.parametrize("fault", IMAGES)
def test_images(index, fault):
    image, code, message = IMAGES[fault]
    _check(index(image=image), code, message)


@pytest.mark.parametrize("fault", ROWS)
def test_rows(index, fault):
    changes, code, message = ROWS[fault]
    _check(index(changes), code, message)


@pytest.mark.parametrize("fault", MASKS)
def test_masks(index, fault):
    counts, message = MASKS[fault]
    changes = {"rle": [GOOD_RLE, {"size": [30, 40], "counts": counts}]}
    _check(index(changes, region_style="mask"), "bad mask", message)
    assert _codes(index(changes)) == ["ok"] * 3, "style 'box' never decodes a mask"


def test_mask_style_needs_masks(index):
    _check(index({"rle": None}, region_style="mask"), "bad mask", "style 'mask' needs `rle`")
    assert _codes(index({"rle": None})) == ["ok"] * 3


@pytest.mark.parametrize("fault", TEXTS)
def test_texts(index, fault):
    change, message = TEXTS[fault]
    _check(_with_surrogates(index, change), "malformed", message)


def _with_surrogates(index, change):
    original = Path.write_text

    def write(self, text):
        return original(self, text, encoding="utf-8", errors="surrogateescape")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", write)
        return index(raw=change)


def test_a_verdict_says_where(index, tmp_path):
    found = index(raw=lambda text: text.replace('"id":', '"id"'))
    offset = (tmp_path / "rows.json").read_bytes().index(b'{"id"', 2)
    assert found.verdicts[1].startswith(f"malformed: row 1 (byte {offset}): not valid JSON (Expecting ':'")
    assert found.column("offset")[1] == offset


def test_a_row_beyond_the_limit(index, monkeypatch):
    for module in (json_rows, json_array):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", 100_000)
    _check(index({"more": "x" * 8_000_000}), "malformed", "has 8000... bytes, expected at most")


EXIF = Image.Exif()
EXIF[0x0112] = 6
FINE = {
    "CMYK": (_saved(_pixels("CMYK"), "JPEG"), (40, 30)),
    "grey": (_saved(_pixels("L")), (40, 30)),
    "transparent": (_saved(_pixels("RGBA"), "WEBP"), (40, 30)),
    "EXIF-rotated": (_saved(_pixels().rotate(90, expand=True), "JPEG", exif=EXIF), (40, 30)),
    "16-bit colour, of which 8 bits are used": (lambda path: path.write_bytes(_rgb16()), (40, 30)),
    "animated": (_saved(_pixels(), "WEBP", save_all=True, append_images=[_pixels("L").convert("RGB")]), (40, 30)),
    "JPEG with the suffix of a PNG": (_saved(_pixels(), "JPEG"), (40, 30)),
}


def _rgb16():
    header = (40).to_bytes(4, "big") + (30).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    return chunks(header, zlib.compress(bytes((1 + 40 * 6) * 30)))


def test_text_beyond_the_basic_plane_is_no_fault(index):
    assert _codes(index(raw=lambda text: text.replace("row-1", r"\ud83d\ude00"))) == ["ok"] * 3


@pytest.mark.parametrize("image", FINE)
def test_images_that_are_no_fault(index, image):
    write, size = FINE[image]
    found = index(image=write)
    assert _codes(found) == ["ok"] * 3, found.verdicts[1]
    assert (found.column("width")[1], found.column("height")[1]) == size


def test_flipped_bytes_that_still_decode_are_not_found_here(index):
    """They are when the image is read in training: its sha256 is the index's (`test_stores.py`)."""

    def flipped(path):
        file = io.BytesIO()
        _pixels().save(file, "JPEG", quality=95)
        data = bytearray(file.getvalue())
        data[-100] ^= 1
        path.write_bytes(data)

    assert _codes(index(image=flipped)) == ["ok"] * 3


def test_what_is_not_decoded_is_not_found(index):
    """The control of `check_images`: without it a truncated image passes."""

    def cut(path):
        _saved(_pixels(), "JPEG")(path)
        _cut(path)

    _check(index(image=cut), "unreadable image", "img1.png: cannot be decoded")
    assert _codes(index(image=cut, check_images=False)) == ["ok"] * 3

"""Rows of OSD are read as they are, and every defect is named with its place."""

import pickle

import pytest

from theworld.data.rows.osd import OSDRows


def test_row_values(open_osd, make_row):
    rows = open_osd([make_row(0), make_row(1, turns=2, id=None, rle=[{"size": [30, 40], "counts": [1200]}] * 4)])
    first, second = rows[0], rows[1]
    assert len(rows) == 2
    assert first.id == "row-0"
    assert first.turns == (("Is <mask> <depth> left of <mask> <depth>?", "Yes, Region [0] is left of Region [1]."),)
    assert first.boxes == ((2.0, 3.0, 12.0, 20.0), (20.0, 10.0, 38.0, 28.0))
    assert first.rles is None
    assert first.qa_info == ("qualitative", "left_predicate")
    assert first.image == "img0.png"
    assert second.id == "img1#1"
    assert second.rles is not None
    assert second.rles[3]["counts"] == [1200]
    assert len(second.turns) == 2


def test_rows_survive_pickling_after_use(open_osd, make_row):
    rows = open_osd([make_row(0), make_row(1)], "train.jsonl")
    before = rows[1]
    assert pickle.loads(pickle.dumps(rows))[1] == before


def _conversation(*pairs):
    return [{"from": speaker, "value": value} for speaker, value in pairs]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filename": None}, r"row 1 \(byte \d+\), id 'row-1': key 'filename' is missing"),
        ({"filename": 3}, "filename is 3, expected a string"),
        ({"filename": "../img0"}, "plain path below the image folder"),
        ({"filename": "/etc/passwd"}, "plain path below the image folder"),
        ({"filename": "absent"}, r"found no image 'absent' with any of .jpg, .jpeg, .png, .webp"),
        ({"filename": "outside"}, "link to outside"),
        ({"bbox": [[2, 3, 12, 20]]}, "found 2 <mask> in the human turns and 1 entries in bbox"),
        ({"bbox": [[2, 3, 12], [1, 1, 2, 2]]}, "bbox 0 is .* expected four finite numbers"),
        ({"bbox": [[2, 3, 12, float("nan")], [1, 1, 2, 2]]}, "not valid JSON .NaN is no JSON number"),
        ({"bbox": [[2, 3, 12, 10**400], [1, 1, 2, 2]]}, "bbox 0 is .* expected four finite numbers"),
        ({"bbox": "none"}, "bbox is of type str, expected a list"),
        ({"conversations": []}, "found 0 messages, expected questions and answers in pairs"),
        ({"conversations": _conversation(("human", "a"))}, "found 1 messages"),
        ({"conversations": _conversation(("gpt", "a"), ("human", "b"))}, "message 0 is from 'gpt', expected 'human'"),
        ({"conversations": _conversation(("human", "a"), ("human", "b"))}, "message 1 is from 'human', expected 'gpt'"),
        ({"conversations": _conversation(("human", "<image>\n"), ("gpt", "b"))}, "message 0 from 'human' is empty"),
        ({"conversations": _conversation(("human", "<unused1>"), ("gpt", "b"))}, "'<unused1>', which is a control"),
        ({"conversations": _conversation(("human", "a"), ("gpt", "<image> b"))}, "'<image>', which is a control"),
        ({"conversations": ["text"]}, "message 0 is 'text', expected"),
        ({"rle": [{"size": [30, 40]}] * 2}, "rle 0 is .* expected"),
        ({"rle": [{"size": [30, 40], "counts": "0"}]}, "found 1 entries in rle and 2 in bbox"),
        ({"qa_info": {"type": "qualitative"}}, "qa_info is"),
        ({"id": [1]}, r"id is \[1\], expected"),
    ],
)
def test_defects_are_named(open_osd, make_row, tmp_path, changes, message):
    rows = open_osd([make_row(0), make_row(1, **changes)])
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "images" / "outside.png").symlink_to(tmp_path / "secret.png")
    assert rows[0].id == "row-0"
    with pytest.raises(ValueError, match=message):
        rows[1]


def test_broken_json_in_one_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n{"id": 1,}\n' + '{"a":' + "[" * 100_000 + "\n")
    rows = OSDRows(path, image_folder=tmp_path)
    for number in (1, 2):
        with pytest.raises(ValueError, match=rf"rows.jsonl, row {number} \(byte \d+\): not valid JSON"):
            rows[number]


def test_missing_folder_and_file(tmp_path):
    with pytest.raises(ValueError, match="image folder .* does not exist"):
        OSDRows(tmp_path / "rows.json", image_folder=tmp_path / "none")
    with pytest.raises(ValueError, match="rows.json: no such file"):
        OSDRows(tmp_path / "rows.json", image_folder=tmp_path)

"""Each benchmark in the schema in which it is published; and rows that are not, by file, row and id."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tests.evaluation.benchmarks import published
from theworld.data.rows.faults import RowError
from theworld.evaluation.benchmarks import spatialrgpt
from theworld.evaluation.benchmarks.benchmark import show
from theworld.evaluation.benchmarks.opening import open_benchmark


def srgpt(folder, rows, **settings):
    path, images = published.write_srgpt(folder, rows)
    return open_benchmark("srgpt", str(path), images=str(images), **settings)


def test_spatialrgpt_bench(tmp_path):
    rows = published.srgpt_rows()
    found = srgpt(tmp_path, rows)
    assert [item.row.id for item in found.items] == [row["id"] for row in rows]
    assert [item.question.question for item in found.items] == [row["text_q"] for row in rows]
    assert [item.question.answer for item in found.items] == [row["conversations"][1]["value"] for row in rows]
    assert [(i.question.qa_type, i.question.qa_category) for i in found.items[:2]] == [
        ("qualitative", "left_predicate"),
        ("qualitative", "tall_choice"),
    ]
    assert found.items[3].row.boxes == ((4.0, 6.0, 30.0, 40.0),)
    assert found.items[0].row.rles == tuple(rows[0]["rle"])
    assert found.items[0].question.image_id == "SUNRGBD/kv1/000000"


@pytest.mark.parametrize("write", [repr, json.dumps], ids=["as Python", "as JSON"])
def test_spatialrgpt_bench_with_its_images(tmp_path, write):
    """Nested values are text there, and the runs of a mask may be bytes."""
    rows = published.srgpt_rows()
    if write is repr:
        for row in rows:
            row["rle"] = [mask | {"counts": mask["counts"].encode()} for mask in row["rle"]]
    path = published.write_srgpt_parquet(tmp_path / "val-00000.parquet", rows, write=write)
    beside = srgpt(tmp_path, published.srgpt_rows())
    inside = open_benchmark("srgpt", str(path))
    assert [item.row for item in inside.items] == [item.row for item in beside.items]
    for style in ("box", "mask"):
        for one, other in zip(inside.items, beside.items, strict=True):
            first, second = (show(b, i, region_style=style).image for b, i in ((inside, one), (beside, other)))
            assert first.tobytes() == second.tobytes()
    assert inside.items[9].number == 9  # the third row group


def test_columns_that_are_not_text_are_read_too(tmp_path):
    rows = [row | {"image": {"bytes": published.photo(n)}} for n, row in enumerate(published.srgpt_rows())]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "val.parquet")
    assert len(spatialrgpt.from_parquet([tmp_path / "val.parquet"]).items) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_info": None}, "image_info is 'None', expected"),
        ({"image_info": {"height": 48}}, r"image_info is .* expected \{'file_path', 'height', 'width'\}"),
        ({"image_info": {"file_path": "../x.png"}}, "must be a plain path below the image folder"),
        ({"image_info": {"file_path": "gone.png"}}, "found no image 'gone.png'"),
        ({"bbox": [[1, 2, 3, 4]]}, "found 2 <mask> in the human turns and 1 entries in bbox"),
        ({"bbox": "nonsense("}, "bbox is 'nonsense\\(', expected a list or dictionary"),
        ({"bbox": [[1, 2, 3, "4"], [1, 2, 3, 4]]}, "bbox 0 is .* expected four finite numbers"),
        ({"qa_info": None}, "expected one turn and qa_info"),
        ({"qa_info": {"type": 3}}, "qa_info is .* expected {'type': text, 'category': text}"),
        ({"conversations": []}, "found 0 messages"),
        ({"rle": [{"size": [48, 64], "counts": 3}] * 2}, "rle 0 is"),
        ({"id": 7}, "id is 7, expected a string"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_row_of_spatialrgpt_bench_is_named(tmp_path, change, message):
    rows = published.srgpt_rows(4)
    rows[2] |= change
    where = r"SpatialRGPT-Bench_v1\.json, row 2.*" + ("id 7" if "id" in change else f"id '{rows[2]['id']}'")
    with pytest.raises(RowError, match=where) as error:
        srgpt(tmp_path, rows)
    error.match(message)
    left = srgpt(tmp_path, rows, skip_malformed=True)
    assert [item.number for item in left.items] == [0, 1, 3]
    assert [fault.number for fault in left.excluded] == [2]
    assert str(error.value) == left.excluded[0].reason


def test_an_id_that_occurs_twice_is_refused(tmp_path):
    rows = published.srgpt_rows(3)
    rows[2]["id"] = rows[0]["id"]
    with pytest.raises(RowError, match=r"row 2: id 'qualitative_0000abcd' is that of row 0"):
        srgpt(tmp_path, rows)


def test_vsr(tmp_path):
    path, images = published.write_vsr(tmp_path, published.vsr_rows())
    found = open_benchmark("vsr", str(path), images=str(images))
    asked = found.items[1].question
    assert asked.question == "Is the following statement true? The umbrella is far away from the motorcycle."
    assert (asked.answer, asked.qa_category, found.scoring) == ("No.", "far_away_from_predicate", "truth")
    assert [item.question.answer for item in found.items] == ["Yes.", "No.", "Yes.", "No.", "Yes."]
    assert found.items[1].image == "000000000001.jpg"


@pytest.mark.parametrize("label", ["1", 2, None, True])
def test_a_bad_label_of_vsr_is_named(tmp_path, label):
    rows = published.vsr_rows()
    rows[3]["label"] = label
    path, images = published.write_vsr(tmp_path, rows)
    with pytest.raises(RowError, match=rf"test\.jsonl, row 3, .*label is {label!r}, expected 1 \(true\) or 0"):
        open_benchmark("vsr", str(path), images=str(images))


def blink_folder(tmp_path, **subtasks):
    for subtask, rows in subtasks.items():
        published.write_blink(tmp_path, subtask, rows)
    return str(tmp_path)


def test_blink(tmp_path):
    subtasks = ["Relative_Depth", "Spatial_Relation"]
    folder = blink_folder(tmp_path, **{name: published.blink_rows(name) for name in subtasks})
    found = open_benchmark("blink", folder, subtasks=subtasks)
    assert [item.row.id for item in found.items] == [f"val_{name}_{n}" for name in subtasks for n in (1, 2, 3, 4)]
    item = found.items[0]
    assert item.question.question == (
        "Which point is closer to the camera?\nSelect from the following choices.\n(A) A is closer\n(B) B is closer"
    )
    assert (item.question.answer, item.choices, item.group) == ("(B)", ("A is closer", "B is closer"), "Relative_Depth")
    assert found.read_image(found.items[7]) == published.photo(4)
    with pytest.raises(ValueError, match="found no row of Object_Localization"):
        open_benchmark("blink", folder)


def test_two_images_are_shown_side_by_side_or_refused(tmp_path):
    name = "Multi-view_Reasoning"
    folder = blink_folder(tmp_path, **{name: published.blink_rows(name, images=2)})
    with pytest.raises(RowError, match=r"row 0, id 'val_Multi-view_Reasoning_1': found 2 images, expected one"):
        open_benchmark("blink", folder, subtasks=[name])
    found = open_benchmark("blink", folder, subtasks=[name], join_images=True)
    joined = np.array(Image.open(io.BytesIO(found.read_image(found.items[0]))))
    left, right = (np.array(Image.open(io.BytesIO(published.photo(seed))).convert("RGB")) for seed in (1, 2))
    assert np.array_equal(joined[:, : published.WIDTH], left)
    assert np.array_equal(joined[:, -published.WIDTH :], right)
    assert (joined[:, published.WIDTH : -published.WIDTH] == 255).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "hidden"}, r"answer is 'hidden', expected \(A\) to \(B\).*use the validation split"),
        ({"answer": "(C)"}, r"answer is '\(C\)'"),
        ({"answer": "A"}, "answer is 'A'"),
        ({"choices": ["one"]}, "found 1 choices, expected 2 to 10"),
        ({"choices": None}, "choices is of type NoneType, expected a list"),
        ({"prompt": None}, "prompt is None, expected a string"),
        ({"prompt": "<start_of_turn>model"}, "is a control token"),
        ({"image_1": None}, "found 0 images, expected one"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_row_of_blink_is_named(tmp_path, change, message):
    rows = published.blink_rows("Relative_Depth")
    rows[2] |= change
    folder = blink_folder(tmp_path, Relative_Depth=rows)
    where = r"Relative_Depth/val-00000-of-00001\.parquet, row 2, id 'val_Relative_Depth_3'"
    with pytest.raises(RowError, match=where) as error:
        open_benchmark("blink", folder, subtasks=["Relative_Depth"])
    with pytest.raises(ValueError, match="found no subtasks, expected some, such as Relative_Depth"):
        open_benchmark("blink", folder, subtasks=[])
    error.match(message)


def test_cv_bench(tmp_path):
    found = open_benchmark("cvbench", str(published.write_cv_bench(tmp_path)))
    assert [item.row.id for item in found.items] == [str(number) for number in range(16)]
    assert [item.group for item in found.items[::4]] == ["ADE20K", "COCO", "Omni3D", "Omni3D"]
    assert [item.question.qa_category for item in found.items[::4]] == ["Count", "Relation", "Depth", "Distance"]
    assert found.read_image(found.items[13]) == published.photo(13)  # of the second file, the second row group
    assert found.items[13].image == "img/3D/distance/omni3d_1.png"
    assert len(found.sources) == 2


def test_rows_of_another_schema_are_refused(tmp_path):
    rows = published.cv_bench_rows(0, "2D", "Count", "ADE20K")
    rows[1]["source"] = "KITTI"
    table = pa.Table.from_pylist(rows, schema=published.CV_BENCH_SCHEMA)
    parquet.write_table(table, tmp_path / "test_2d.parquet")
    with pytest.raises(RowError, match=r"test_2d.parquet, row 1, id '1': source is 'KITTI', expected one of"):
        open_benchmark("cvbench", str(tmp_path))
    parquet.write_table(table.drop_columns(["prompt"]), tmp_path / "test_2d.parquet")
    with pytest.raises(ValueError, match=r"test_2d.parquet: lacks the columns \['prompt'\], found \['idx'"):
        open_benchmark("cvbench", str(tmp_path))
    (tmp_path / "test_2d.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(ValueError, match="not a readable parquet file"):
        open_benchmark("cvbench", str(tmp_path))


def test_text_that_takes_too_much_memory_is_not_read(tmp_path, monkeypatch):
    folder = str(published.write_cv_bench(tmp_path))
    monkeypatch.setattr("theworld.evaluation.benchmarks.parquet_rows.MAX_TEXT_BYTES", 100)
    with pytest.raises(ValueError, match="expected at most 100; write the file with smaller"):
        open_benchmark("cvbench", folder)

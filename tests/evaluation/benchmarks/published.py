"""Small files in the schemas in which the benchmarks are published: their keys, their types, made-up contents."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet
from pycocotools import mask as coco

WIDTH, HEIGHT = 64, 48
BOXES = ([4, 6, 30, 40], [34, 10, 60, 44])


def photo(seed: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """A PNG of smooth noise, another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(encoded, "PNG")
    return encoded.getvalue()


def write_photos(folder: Path, names: Sequence[str]) -> Path:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(seed))
    return folder


def rle_of(box: Sequence[int]) -> dict[str, object]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[box[1] : box[3], box[0] : box[2]] = 1
    packed = coco.encode(mask)
    return {"size": [int(side) for side in packed["size"]], "counts": packed["counts"].decode()}


SRGPT_KINDS = (
    ("qualitative", "left_predicate", "Is <mask> to the left of <mask>?", "Yes, Region [0] is to the left."),
    ("qualitative", "tall_choice", "Between <mask> and <mask>, which is taller?", "Region [1] is taller."),
    ("quantitative", "distance_data", "How far apart are <mask> and <mask>?", "They are 1.52 meters apart."),
    ("quantitative", "width_data", "How wide is <mask>?", "Region [0] is 2.1 feet wide."),
    ("quantitative", "direction", "Where is <mask> from <mask>?", "Region [0] is at 3 o'clock from Region [1]."),
)


def srgpt_rows(count: int = 10) -> list[dict[str, object]]:
    """Rows of `SpatialRGPT-Bench_v1.json`, with images in sub-folders as Omni3D has them."""
    rows = []
    for number in range(count):
        kind, category, question, answer = SRGPT_KINDS[number % len(SRGPT_KINDS)]
        boxes = [list(box) for box in BOXES[: question.count("<mask>")]]
        named = question.replace("<mask>", "Region [0]", 1).replace("<mask>", "Region [1]", 1)
        rows.append(
            {
                "id": f"{kind}_{number:04d}abcd",
                "image_info": {"file_path": f"SUNRGBD/kv1/{number:06d}.png", "height": HEIGHT, "width": WIDTH},
                "text_q": named,
                "qa_info": {"type": kind, "category": category},
                "conversations": [
                    {"from": "human", "value": f"<image>\n{question}"},
                    {"from": "gpt", "value": answer},
                ],
                "bbox": boxes,
                "rle": [rle_of(box) for box in boxes],
            }
        )
    return rows


def write_srgpt(folder: Path, rows: Sequence[dict[str, object]]) -> tuple[Path, Path]:
    """(the JSON array, the folder of its images)."""
    images = write_photos(folder / "omni3d", [str(row["image_info"]["file_path"]) for row in srgpt_rows(len(rows))])
    path = folder / "SpatialRGPT-Bench_v1.json"
    path.write_text(json.dumps(list(rows)))
    return path, images


def write_srgpt_parquet(path: Path, rows: Sequence[dict[str, object]], *, write=repr) -> Path:
    """The later form: images inside, nested values as text."""
    columns: dict[str, list[object]] = {"image": [{"bytes": photo(n), "path": None} for n in range(len(rows))]}
    for key in rows[0]:
        values = [row[key] for row in rows]
        columns[key] = [value if isinstance(value, str) else write(value) for value in values]
    parquet.write_table(pa.table(columns), path, row_group_size=4)
    return path


def vsr_rows() -> list[dict[str, object]]:
    """As `cambridgeltl/vsr_random` has them."""
    captions = [
        ("The teddy bear is in front of the person.", 1, "in front of"),
        ("The umbrella is far away from the motorcycle.", 0, "far away from"),
        ("The cat is on top of the car.", 1, "on top of"),
        ("The dog is under the table.", 0, "under"),
        ("The cup is at the right side of the book.", 1, "at the right side of"),
    ]
    return [
        {
            "image": f"{number:012d}.jpg",
            "image_link": f"http://images.cocodataset.org/train2017/{number:012d}.jpg",
            "caption": caption,
            "label": label,
            "relation": relation,
            "annotator_id": 31,
            "vote_true_validator_id": [2, 6],
            "vote_false_validator_id": [],
            "subj": "x",
            "obj": "y",
        }
        for number, (caption, label, relation) in enumerate(captions)
    ]


def write_vsr(folder: Path, rows: Sequence[dict[str, object]]) -> tuple[Path, Path]:
    images = write_photos(folder / "train2017", [str(row["image"]) for row in vsr_rows()])
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, images


def _with_choices(question: str, choices: Sequence[str]) -> str:
    lines = [f"({letter}) {choice}" for letter, choice in zip("ABCDEF", choices, strict=False)]
    return "\n".join([question, "Select from the following choices.", *lines])


BLINK_SCHEMA = pa.schema(
    [("idx", pa.string()), ("question", pa.string()), ("sub_task", pa.string())]
    + [(f"image_{n}", pa.struct([("bytes", pa.binary()), ("path", pa.string())])) for n in range(1, 5)]
    + [("choices", pa.list_(pa.string())), ("answer", pa.string()), ("prompt", pa.string())]
    + [("explanation", pa.string())]
)


def blink_rows(subtask: str, count: int = 4, images: int = 1) -> list[dict[str, object]]:
    """As `BLINK-Benchmark/BLINK` has them."""
    kinds = {
        "Relative_Depth": ("Which point is closer to the camera?", ("A is closer", "B is closer")),
        "Spatial_Relation": ("Is the car beneath the cat?", ("yes", "no")),
        "Multi-view_Reasoning": ("Is the camera moving left or right?", ("left", "right")),
    }
    question, choices = kinds[subtask]
    rows = []
    for number in range(count):
        row: dict[str, object] = {
            "idx": f"val_{subtask}_{number + 1}",
            "question": question,
            "sub_task": subtask,
            "choices": list(choices),
            "answer": "(A)" if number % 3 else "(B)",
            "prompt": _with_choices(question, choices),
            "explanation": "",
        }
        for place in range(1, 5):
            row[f"image_{place}"] = {"bytes": photo(number + place), "path": None} if place <= images else None
        rows.append(row)
    return rows


def write_blink(folder: Path, subtask: str, rows: Sequence[dict[str, object]]) -> Path:
    """In the folder of its subtask; returns the folder above."""
    target = folder / subtask
    target.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=BLINK_SCHEMA)
    parquet.write_table(table, target / "val-00000-of-00001.parquet", row_group_size=3)
    return folder


CV_BENCH_SCHEMA = pa.schema(
    [("idx", pa.int64()), ("type", pa.string()), ("task", pa.string())]
    + [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("question", pa.string())]
    + [("choices", pa.list_(pa.string())), ("answer", pa.string()), ("prompt", pa.string()), ("filename", pa.string())]
    + [("source", pa.string()), ("source_dataset", pa.string()), ("source_filename", pa.string())]
    + [("target_class", pa.list_(pa.string())), ("target_size", pa.list_(pa.int64()))]
    + [("bbox", pa.list_(pa.list_(pa.float64())))]
)


def cv_bench_rows(first: int, kind: str, task: str, source: str, count: int = 4) -> list[dict[str, object]]:
    """As `nyu-visionx/CV-Bench` has them."""
    question = {"Count": "How many cups are in the image?"}.get(task, f"A question of {task}?")
    choices = ("3", "2", "1", "0") if task == "Count" else ("left", "right")
    return [
        {
            "idx": first + number,
            "type": kind,
            "task": task,
            "image": {"bytes": photo(first + number), "path": None},
            "question": question,
            "choices": list(choices),
            "answer": ("(A)", "(B)")[number % 2],
            "prompt": _with_choices(question, choices),
            "filename": f"img/{kind}/{task.lower()}/{source.lower()}_{number}.png",
            "source": source,
            "source_dataset": f"{source} validation",
            "source_filename": f"{number}.jpg",
            "target_class": None,
            "target_size": None,
            "bbox": None,
        }
        for number in range(count)
    ]


def write_cv_bench(folder: Path) -> Path:
    """`test_2d.parquet` and `test_3d.parquet`; returns their folder."""
    two = cv_bench_rows(0, "2D", "Count", "ADE20K") + cv_bench_rows(4, "2D", "Relation", "COCO")
    three = cv_bench_rows(8, "3D", "Depth", "Omni3D") + cv_bench_rows(12, "3D", "Distance", "Omni3D")
    for name, rows in (("test_2d", two), ("test_3d", three)):
        table = pa.Table.from_pylist(rows, schema=CV_BENCH_SCHEMA)
        parquet.write_table(table, folder / f"{name}.parquet", row_group_size=3)
    return folder

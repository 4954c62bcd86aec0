"""SpatialRGPT-Bench: questions about one or two regions of a photo, with boxes and masks.

As published by its authors there are two forms with the same keys: `id`, `image_info` {file_path, height, width},
`text_q` (the question with `Region [i]` names), `qa_info` {type, category}, `conversations` (with `<mask>`), `bbox`
and, for most rows, `rle`.

- `SpatialRGPT-Bench_v1.json`, a JSON array beside Omni3D's images;
- parquet files with an `image` column, in which nested values are text, as Python or JSON writes them.

A row becomes a row of the Open Spatial Dataset and is read by that format's own checks.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path

from theworld.data.rows.faults import MALFORMED, RowError
from theworld.data.rows.json_rows import JsonRows
from theworld.data.rows.json_window import MAX_ROW_BYTES
from theworld.data.rows.osd import OSDFormat
from theworld.data.rows.row import JsonObject, field, parse_object, string_field
from theworld.data.stores import ImageFolder
from theworld.evaluation.benchmarks.benchmark import Benchmark, Item, collect
from theworld.evaluation.benchmarks.osd import find_image, one_question
from theworld.evaluation.benchmarks.parquet_rows import ParquetRows
from theworld.evaluation.benchmarks.places import sha256_of

NAME = "srgpt"
PATTERNS = ("*.parquet",)
NESTED = ("image_info", "qa_info", "conversations", "bbox", "rle")


def from_json(path: Path, images: Path, *, skip_malformed: bool = False) -> Benchmark:
    """Questions of the JSON array.

    Args:
        path: `SpatialRGPT-Bench_v1.json`.
        images: Folder below which `image_info.file_path` is found.
        skip_malformed: Leave faulty rows out instead of raising the first one's error.

    Raises:
        ValueError: A row, by file, row, id and the remedy.
    """
    rows, folder = JsonRows(path), ImageFolder(images, rows_path=path)

    def place(number: int) -> str:
        return f"{path}, row {number}"

    def item(raw: bytes, number: int) -> Item:
        made = _item(parse_object(raw, where=place(number)), number, place(number), has_image=False)
        return Item(row=made.row, number=number, image=find_image(folder, made.row, place(number)), size=made.size)

    items, excluded = collect(map(rows.__getitem__, range(len(rows))), item, skip_malformed=skip_malformed, place=place)
    return Benchmark(
        name=NAME,
        items=items,
        excluded=excluded,
        sources={path.name: rows.sha256},
        place=place,
        read_image=lambda item: folder.read(item.image),
    )


def from_parquet(paths: Sequence[Path], *, skip_malformed: bool = False) -> Benchmark:
    """Questions of the parquet files, which hold the images.

    Args:
        paths: The files of the split.
        skip_malformed: Leave faulty rows out instead of raising the first one's error.

    Raises:
        ValueError: A file or row, by file, row, id and the remedy.
    """
    table = ParquetRows(paths, needed=("id", "image", "conversations", "bbox", "qa_info"), images=("image",))
    items, excluded = collect(
        table.rows,
        lambda row, number: _item(row, number, table.place(number), has_image=True),
        skip_malformed=skip_malformed,
        place=table.place,
    )
    return Benchmark(
        name=NAME,
        items=items,
        excluded=excluded,
        sources=sha256_of(table.paths),
        place=table.place,
        read_image=lambda item: table.image(item.number, "image"),
    )


def _item(published: JsonObject, number: int, place: str, *, has_image: bool) -> Item:
    """The question of a published row; one that has its image with it need not say what it is called."""
    try:
        row = dict(published)
        row |= {key: _nested(row[key], key) for key in NESTED if row.get(key) is not None}
        as_osd = {key: field(row, key) for key in ("id", "conversations", "bbox", "qa_info")}
        id = string_field(as_osd, "id")
        name, size = (
            (id, None) if has_image and row.get("image_info") is None else _image_info(field(row, "image_info"))
        )
        as_osd |= {"filename": name, "rle": _text_counts(row.get("rle"))}
        raw = json.dumps(as_osd).encode()
    except (RowError, TypeError) as error:
        code = error.code if isinstance(error, RowError) else MALFORMED
        raise RowError(code, f"{place}, id {published.get('id', 'absent')!r}: {error}") from error
    parsed = OSDFormat().parse(raw, number=number, where=place)
    return Item(row=one_question(parsed, place), number=number, image=name, size=size)


def _nested(value: object, key: str) -> object:
    """A list or dictionary that may have been written as text."""
    if not isinstance(value, str):
        return value
    if len(value) > MAX_ROW_BYTES:
        raise RowError(MALFORMED, f"{key} has {len(value)} characters, expected at most {MAX_ROW_BYTES}.")
    for read in (json.loads, ast.literal_eval):  # the latter reads literals only, and runs nothing
        try:
            return read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise RowError(MALFORMED, f"{key} is {value[:80]!r}, expected a list or dictionary as Python or JSON writes it.")


def _image_info(info: object) -> tuple[str, tuple[int, int] | None]:
    """Name of the image, and its (width, height) if the row says them."""
    if not isinstance(info, dict) or not isinstance(info.get("file_path"), str):
        raise RowError(MALFORMED, f"image_info is {str(info)[:80]!r}, expected {{'file_path', 'height', 'width'}}.")
    width, height = info.get("width"), info.get("height")
    if width is None and height is None:
        return info["file_path"], None
    if type(width) is not int or type(height) is not int:
        raise RowError(MALFORMED, f"image_info is {width!r} wide, {height!r} high, expected whole numbers of pixels.")
    return info["file_path"], (width, height)


def _text_counts(rle: object) -> object:
    """Masks with their runs as text: pycocotools writes bytes, and so do Python's literals."""
    if not isinstance(rle, list):
        return rle
    return [
        mask | {"counts": mask["counts"].decode("ascii", "replace")}
        if isinstance(mask, dict) and isinstance(mask.get("counts"), bytes)
        else mask
        for mask in rle
    ]

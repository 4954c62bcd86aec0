"""BLINK: multiple choice about what people see at a glance; here its spatial subtasks.

As published (`BLINK-Benchmark/BLINK`) there is a folder a subtask, with `val-*.parquet` (answers given) and
`test-*.parquet` (answers `hidden`). Columns: `idx` (text), `sub_task`, `question`, `prompt` (the question with its
choices), `choices` (list of text), `answer` (`(A)`), `explanation`, `image_1` to `image_4` (absent ones are null).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from theworld.data.pictures.images import MAX_PIXELS, load_image
from theworld.data.rows.faults import MALFORMED, TOO_LARGE, RowError
from theworld.data.rows.row import JsonObject
from theworld.evaluation.benchmarks.benchmark import Benchmark, Item, collect
from theworld.evaluation.benchmarks.choice_rows import choice_item
from theworld.evaluation.benchmarks.parquet_rows import ParquetRows
from theworld.evaluation.benchmarks.places import sha256_of

NAME = "blink"
SPATIAL = ("Relative_Depth", "Spatial_Relation", "Object_Localization")
"""The subtasks about space that show one image; `Multi-view_Reasoning` shows two."""

IMAGES = ("image_1", "image_2", "image_3", "image_4")


def patterns(subtasks: Sequence[str]) -> tuple[str, ...]:
    """The published files of these subtasks that have answers."""
    return tuple(f"{subtask}/val*.parquet" for subtask in subtasks)


def blink(
    paths: Sequence[Path],
    *,
    subtasks: Sequence[str] = SPATIAL,
    join_images: bool = False,
    skip_malformed: bool = False,
) -> Benchmark:
    """Questions of BLINK's files.

    Args:
        paths: Parquet files.
        subtasks: Which `sub_task` is asked; rows of others are passed over.
        join_images: Show several images side by side as one. Without it such rows are faulty: a sample has one image.
        skip_malformed: Leave faulty rows out instead of raising the first one's error.

    Raises:
        ValueError: A file or row, by file, row, id and the remedy.
    """
    needed = ("idx", "sub_task", "prompt", "choices", "answer", "image_1")
    table = ParquetRows(paths, needed=needed, images=IMAGES)

    def item(row: JsonObject, number: int) -> Item | None:
        if row.get("sub_task") not in subtasks:
            return None
        made = choice_item(row, number, table.place(number), category="sub_task", group="sub_task")
        shown = [name for name in IMAGES if table.has_image(number, name)]
        if len(shown) != 1 and not (shown and join_images):
            raise RowError(
                MALFORMED,
                f"{table.place(number)}, id {made.row.id!r}: found {len(shown)} images, expected one; leave out the "
                f"subtask {row['sub_task']}, or show its images side by side with --join_images.",
            )
        return made

    held = {row.get("sub_task") for row in table.rows}
    if absent := [subtask for subtask in subtasks if subtask not in held]:
        raise ValueError(
            f"found no row of {', '.join(absent)} in {', '.join(str(path) for path in paths)}, expected some: the mean "
            "over subtasks would be of others; fetch them, or name the subtasks that are there with --subtasks."
        )
    items, excluded = collect(table.rows, item, skip_malformed=skip_malformed, place=table.place)

    def read_image(item: Item) -> bytes:
        shown = [table.image(item.number, name) for name in IMAGES if table.has_image(item.number, name)]
        return shown[0] if len(shown) == 1 else side_by_side(shown, item.image)

    return Benchmark(
        name=NAME,
        items=items,
        excluded=excluded,
        sources=sha256_of(table.paths),
        place=table.place,
        read_image=read_image,
    )


def side_by_side(images: Sequence[bytes], name: str) -> bytes:
    """Encoded images from left to right as one PNG, on white, each with its upper edge at the top.

    Args:
        images: At least one.
        name: For messages.

    Raises:
        RowError: One cannot be decoded, or together they have too many pixels.
    """
    decoded = [load_image(image, f"{name}, image {number}") for number, image in enumerate(images, start=1)]
    gap = max(4, max(image.height for image in decoded) // 50)
    width = sum(image.width for image in decoded) + gap * (len(decoded) - 1)
    height = max(image.height for image in decoded)
    if width * height > MAX_PIXELS:
        raise RowError(TOO_LARGE, f"{name}: joined images have {width * height} pixels, expected at most {MAX_PIXELS}.")
    joined = Image.new("RGB", (width, height), (255, 255, 255))
    left = 0
    for image in decoded:
        joined.paste(image, (left, 0))
        left += image.width + gap
    encoded = io.BytesIO()
    joined.save(encoded, "PNG")
    return encoded.getvalue()

"""CV-Bench: multiple choice about counts and relations in 2D, depth and distance in 3D.

As published (`nyu-visionx/CV-Bench`) there are `test_2d.parquet` and `test_3d.parquet`. Columns: `idx` (number),
`type` (`2D`, `3D`), `task` (`Count`, `Relation`, `Depth`, `Distance`), `image`, `question`, `choices` (list of text),
`answer` (`(A)`), `prompt` (the question with its choices), `filename`, `source` (`ADE20K`, `COCO`, `Omni3D`),
`source_dataset`, `source_filename`, `target_class`, `target_size`, `bbox`. Boxes are already drawn on the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from theworld.data.rows.faults import MALFORMED, RowError
from theworld.data.rows.row import JsonObject
from theworld.evaluation.benchmarks.benchmark import Benchmark, Item, collect
from theworld.evaluation.benchmarks.choice_rows import choice_item
from theworld.evaluation.benchmarks.parquet_rows import ParquetRows
from theworld.evaluation.benchmarks.places import sha256_of

NAME = "cvbench"
PATTERNS = ("test*.parquet",)
SOURCES = ("ADE20K", "COCO", "Omni3D")


def cvbench(paths: Sequence[Path], *, skip_malformed: bool = False) -> Benchmark:
    """Questions of CV-Bench's files.

    Args:
        paths: Parquet files.
        skip_malformed: Leave faulty rows out instead of raising the first one's error.

    Raises:
        ValueError: A file or row, by file, row, id and the remedy.
    """
    needed = ("idx", "type", "task", "image", "choices", "answer", "prompt", "source")
    table = ParquetRows(paths, needed=needed, images=("image",))

    def item(row: JsonObject, number: int) -> Item:
        made = choice_item(row, number, table.place(number), category="task", group="source")
        if made.group not in SOURCES:
            raise RowError(
                MALFORMED,
                f"{table.place(number)}, id {made.row.id!r}: source is {made.group!r}, expected one of {SOURCES}.",
            )
        return made

    items, excluded = collect(table.rows, item, skip_malformed=skip_malformed, place=table.place)
    return Benchmark(
        name=NAME,
        items=items,
        excluded=excluded,
        sources=sha256_of(table.paths),
        place=table.place,
        read_image=lambda item: table.image(item.number, "image"),
    )

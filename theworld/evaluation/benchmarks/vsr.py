"""Visual Spatial Reasoning (VSR): is a caption about two things in a COCO photo true?

As published (`cambridgeltl/vsr_random`, `cambridgeltl/vsr_zeroshot`), JSON Lines with `image` (COCO file name),
`image_link`, `caption`, `label` (1 true, 0 false), `relation`, and notes of annotators. A caption is asked as
`theworld.data.rows.vsr` asks it in training.
"""

from __future__ import annotations

from pathlib import Path

from theworld.data.rows.json_rows import JsonRows
from theworld.data.rows.vsr import VsrFormat
from theworld.data.stores import ImageFolder
from theworld.evaluation.benchmarks.benchmark import Benchmark, Item, collect
from theworld.evaluation.benchmarks.osd import find_image

CHOICES = ("Yes.", "No.")


def vsr(path: Path, images: Path, *, skip_malformed: bool = False) -> Benchmark:
    """Questions of a VSR split.

    Args:
        path: `train.jsonl`, `dev.jsonl` or `test.jsonl`.
        images: Folder of the COCO photos (`train2017`, where all of them are).
        skip_malformed: Leave faulty rows out instead of raising the first one's error.

    Raises:
        ValueError: A row, by file, row, id and the remedy.
    """
    rows, folder, row_format = JsonRows(path), ImageFolder(images, rows_path=path), VsrFormat()

    def place(number: int) -> str:
        return f"{path}, row {number}"

    def item(raw: bytes, number: int) -> Item:
        row = row_format.parse(raw, number=number, where=place(number))
        assert row.qa_info is not None, "VsrFormat gives it"
        image = find_image(folder, row, place(number))
        return Item(row=row, number=number, image=image, choices=CHOICES, group=row.qa_info[1])

    items, excluded = collect(map(rows.__getitem__, range(len(rows))), item, skip_malformed=skip_malformed, place=place)
    return Benchmark(
        name="vsr",
        items=items,
        excluded=excluded,
        sources={path.name: rows.sha256},
        place=place,
        read_image=lambda item: folder.read(item.image),
    )

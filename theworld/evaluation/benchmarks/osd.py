"""Any held-out split in the Open Spatial Dataset's schema: one question a row, with `qa_info`.

The schema is `theworld.data.rows.osd`'s; the rows of `theworld data synthetic --num_test` are of this kind.
"""

from __future__ import annotations

from pathlib import Path

from theworld.data.rows.faults import BAD_CONVERSATION, MALFORMED, RowError
from theworld.data.rows.json_rows import JsonRows
from theworld.data.rows.osd import OSDFormat
from theworld.data.rows.row import ParsedRow
from theworld.data.stores import ImageFolder
from theworld.evaluation.benchmarks.benchmark import Benchmark, Item, collect


def osd(path: Path, images: Path, *, skip_malformed: bool = False) -> Benchmark:
    """Questions of OSD rows.

    Args:
        path: JSON array or JSON Lines.
        images: Folder below which every image lies.
        skip_malformed: Leave faulty rows out instead of raising the first one's error.

    Raises:
        ValueError: A row, by file, row, id and the remedy.
    """
    rows, folder, row_format = JsonRows(path), ImageFolder(images, rows_path=path), OSDFormat()

    def place(number: int) -> str:
        return f"{path}, row {number}"

    def item(raw: bytes, number: int) -> Item:
        row = one_question(row_format.parse(raw, number=number, where=place(number)), place(number))
        return Item(row=row, number=number, image=find_image(folder, row, place(number)))

    items, excluded = collect(map(rows.__getitem__, range(len(rows))), item, skip_malformed=skip_malformed, place=place)
    return Benchmark(
        name="osd",
        items=items,
        excluded=excluded,
        sources={path.name: rows.sha256},
        place=place,
        read_image=lambda item: folder.read(item.image),
    )


def one_question(row: ParsedRow, place: str) -> ParsedRow:
    """The row, if it has one turn and says what kind of question it is.

    Args:
        row: Any.
        place: File and row, for the message.

    Raises:
        RowError: It does not.
    """
    if len(row.turns) != 1 or row.qa_info is None:
        code = BAD_CONVERSATION if len(row.turns) != 1 else MALFORMED
        raise RowError(
            code,
            f"{place}, id {row.id!r}: found {len(row.turns)} turns and qa_info {row.qa_info}, expected one turn and "
            "qa_info {type, category}; write a row for each question.",
        )
    return row


def find_image(folder: ImageFolder, row: ParsedRow, place: str) -> str:
    """Path of a row's image below its folder.

    Args:
        folder: Of all images.
        row: Names its image.
        place: File and row, for the message.

    Raises:
        RowError: There is no such image.
    """
    try:
        return folder.find(row.filename)
    except RowError as error:
        raise RowError(error.code, f"{place}, id {row.id!r}: {error}") from error

"""Rows of the Open Spatial Dataset on disk: one conversation about one image, checked when it is read.

The schema (SpatialRGPT's): `filename` without extension, `conversations` of {"from": "human" | "gpt", "value"},
`bbox` with one box a `<mask>`, optionally `rle` masks, `id`, and `qa_info` {type, category} as in SpatialRGPT-Bench.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from theworld.data.pictures.masks import Rle
from theworld.data.pictures.regions import Box, count_masks
from theworld.data.rows.faults import MALFORMED, MASK_COUNT, RowError
from theworld.data.rows.json_rows import JsonRows
from theworld.data.rows.row import (
    JsonObject,
    ParsedRow,
    Row,
    RowFormat,
    conversation_turns,
    identity,
    list_field,
    parse_object,
    qa_info,
    string_field,
)
from theworld.data.stores import ImageFolder

_INFINITE = 1e300
"""From here on a number counts as infinite: JSON allows whole numbers that no float can hold."""


class OSDFormat:
    """The Open Spatial Dataset's schema."""

    name = "osd"

    def parse(self, raw: bytes, *, number: int, where: str) -> ParsedRow:
        """Parse and check one row.

        Args:
            raw: The JSON of the row.
            number: Row number in the file, for rows without an id.
            where: File, row and byte offset, for messages.

        Raises:
            RowError: The row is not what the schema says.
        """
        row = parse_object(raw, where=where)
        try:
            filename = string_field(row, "filename")
            boxes = _boxes(row)
            turns = conversation_turns(list_field(row, "conversations"))
            if count_masks(turns) != len(boxes):
                raise RowError(
                    MASK_COUNT,
                    f"found {count_masks(turns)} <mask> in the human turns and {len(boxes)} entries in bbox, expected "
                    "one box a <mask>, in order of mention; add or remove boxes.",
                )
            return ParsedRow(
                id=identity(row, f"{filename}#{number}"),
                filename=filename,
                turns=turns,
                boxes=boxes,
                rles=_rles(row, len(boxes)),
                qa_info=qa_info(row),
            )
        except RowError as error:
            raise RowError(error.code, f"{where}, id {row.get('id', 'absent')!r}: {error}") from error


class OSDRows:
    """A lazy list of the rows of a file that is read through at every start; a row is checked when it is asked for.

    Args:
        path: JSON array or JSON Lines.
        image_folder: Folder below which every image lies.
        row_format: How a row is understood.

    Raises:
        ValueError: From construction or from `rows[i]`, naming file, row, byte offset, id and the remedy.
    """

    def __init__(self, path: str | Path, *, image_folder: str | Path, row_format: RowFormat | None = None):
        self.path = Path(path)
        self.images = ImageFolder(image_folder, rows_path=path)
        self.row_format: RowFormat = row_format or OSDFormat()
        self.json = JsonRows(path)

    def __len__(self) -> int:
        return len(self.json)

    def __getitem__(self, index: int) -> Row:
        """Read, parse and check one row."""
        where = self.where(index)
        parsed = self.row_format.parse(self.json[index], number=index, where=where)
        try:
            image = self.images.find(parsed.filename)
        except RowError as error:
            raise RowError(error.code, f"{where}, id {parsed.id!r}: {error}") from error
        return Row(
            id=parsed.id,
            index=index,
            image=image,
            turns=parsed.turns,
            boxes=parsed.boxes,
            rles=parsed.rles,
            qa_info=parsed.qa_info,
        )

    def where(self, index: int) -> str:
        """File, row and byte, for messages."""
        return f"{self.path}, row {index} (byte {int(self.json.offsets[index])})"


def _boxes(row: JsonObject) -> tuple[Box, ...]:
    boxes = []
    for number, box in enumerate(list_field(row, "bbox")):
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
            raise RowError(
                MALFORMED, f"bbox {number} is {box!r}, expected four finite numbers [left, top, right, bottom]."
            )
        boxes.append((float(box[0]), float(box[1]), float(box[2]), float(box[3])))
    return tuple(boxes)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _INFINITE


def _rles(row: JsonObject, expected: int) -> tuple[Rle, ...] | None:
    if not row.get("rle"):
        return None
    rles = list_field(row, "rle")
    if len(rles) != expected:
        raise RowError(MASK_COUNT, f"found {len(rles)} entries in rle and {expected} in bbox, expected as many.")
    return tuple(_rle(rle, number) for number, rle in enumerate(rles))


def _rle(rle: object, number: int) -> Rle:
    if isinstance(rle, dict):
        size, counts = rle.get("size"), rle.get("counts")
        size_is_valid = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
        counts_are_valid = isinstance(counts, str) or (
            isinstance(counts, list) and all(type(run) is int for run in counts)
        )
        if size_is_valid and counts_are_valid:
            return cast(Rle, rle)
    raise RowError(
        MALFORMED, f"rle {number} is {str(rle)[:80]}, expected {{'size': [height, width], 'counts': text or list}}."
    )

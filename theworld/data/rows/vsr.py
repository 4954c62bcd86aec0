"""Rows of Visual Spatial Reasoning (VSR): a caption about two things in a COCO photo, and whether it is true.

The schema: `image` (file name), `caption`, `label` (1 true, 0 false), `relation`; a row has no id of its own.
"""

from __future__ import annotations

from theworld.data.pictures.regions import count_masks
from theworld.data.rows.faults import MALFORMED, MASK_COUNT, RowError
from theworld.data.rows.row import ParsedRow, field, identity, parse_object, plain_text, string_field

QUESTION = "Is the following statement true? {caption}"
ANSWERS = ("No.", "Yes.")


class VsrFormat:
    """VSR's schema; a caption becomes a question to be answered with Yes or No."""

    name = "vsr"

    def parse(self, raw: bytes, *, number: int, where: str) -> ParsedRow:
        """Parse and check one row.

        Args:
            raw: The JSON of the row.
            number: Row number in the file; with the image's name, the id.
            where: File, row and byte offset, for messages.

        Raises:
            RowError: The row is not what the schema says.
        """
        row = parse_object(raw, where=where)
        try:
            filename = string_field(row, "image")
            caption = plain_text(string_field(row, "caption"), 0, "human")
            relation = "_".join(string_field(row, "relation").split())
            label = field(row, "label")
            if type(label) is not int or label not in (0, 1):
                raise RowError(MALFORMED, f"label is {label!r}, expected 1 (true) or 0 (false).")
            turns = ((QUESTION.format(caption=caption), ANSWERS[label]),)
            if masks := count_masks(turns):
                raise RowError(MASK_COUNT, f"found {masks} <mask> in a row of a format without boxes; remove them.")
            return ParsedRow(
                id=identity(row, f"{filename}#{number}"),
                filename=filename,
                turns=turns,
                qa_info=("qualitative", f"{relation}_predicate"),
            )
        except RowError as error:
            raise RowError(error.code, f"{where}, id {row.get('id', 'absent')!r}: {error}") from error

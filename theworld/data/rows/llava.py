"""Rows of LLaVA's pretraining and instruction files: a conversation about a whole image, without boxes.

The schema: `image` (path below the image folder, with its extension), `conversations` of {"from": "human" | "gpt",
"value"} with `<image>` at the beginning or the end of the first one, and `id`, which several rows may share.
"""

from __future__ import annotations

import re

from theworld.data.pictures.regions import count_masks
from theworld.data.rows.faults import MASK_COUNT, RowError
from theworld.data.rows.row import (
    ParsedRow,
    conversation_turns,
    identity,
    list_field,
    parse_object,
    qa_info,
    string_field,
)

_TRAILING_IMAGE = re.compile(r"\s*<image>\s*$")


class LlavaFormat:
    """LLaVA's schema. A row without `image` (pure text) is malformed here: every sample has one image."""

    name = "llava"

    def parse(self, raw: bytes, *, number: int, where: str) -> ParsedRow:
        """Parse and check one row.

        Args:
            raw: The JSON of the row.
            number: Row number in the file; part of the id, because LLaVA's own ids repeat.
            where: File, row and byte offset, for messages.

        Raises:
            RowError: The row is not what the schema says.
        """
        row = parse_object(raw, where=where)
        try:
            filename = string_field(row, "image")
            turns = conversation_turns(_image_first(list_field(row, "conversations")))
            if masks := count_masks(turns):
                raise RowError(MASK_COUNT, f"found {masks} <mask> in a row of a format without boxes; remove them.")
            return ParsedRow(
                id=f"{identity(row, filename)}#{number}", filename=filename, turns=turns, qa_info=qa_info(row)
            )
        except RowError as error:
            raise RowError(error.code, f"{where}, id {row.get('id', 'absent')!r}: {error}") from error


def _image_first(messages: list[object]) -> list[object]:
    """The messages, the first without the `<image>` at its end; what else is wrong with them is for others to say."""
    match messages:
        case [{"from": speaker, "value": str(value)}, *others] if value.count("<image>") == 1:
            return [{"from": speaker, "value": _TRAILING_IMAGE.sub("", value)}, *others]
    return messages

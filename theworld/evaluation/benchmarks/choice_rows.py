"""A published multiple-choice row as a question: its prompt, its choices, and the letter of the right one."""

from __future__ import annotations

import re

from theworld.data.rows.faults import MALFORMED, RowError
from theworld.data.rows.row import JsonObject, ParsedRow, field, list_field, plain_text, string_field
from theworld.evaluation.benchmarks.benchmark import Item

LETTERS = "ABCDEFGHIJ"

_LETTER = re.compile(r"\(([A-Z])\)")


def choice_item(row: JsonObject, number: int, place: str, *, category: str, group: str) -> Item:
    """The question of a row with `idx`, `prompt`, `choices` and `answer`.

    Args:
        row: As published, without its images.
        number: Row number over all files.
        place: File and row, for messages.
        category: The key of the row that says what kind of question it is.
        group: The key of what the benchmark's own number averages over.

    Raises:
        RowError: A key is missing or holds something else.
    """
    try:
        id = _id(row)
        choices = tuple(_choice(choice) for choice in list_field(row, "choices"))
        if not 2 <= len(choices) <= len(LETTERS):
            raise RowError(MALFORMED, f"found {len(choices)} choices, expected 2 to {len(LETTERS)}.")
        asked = plain_text(string_field(row, "prompt"), 0, "human")
        answer = string_field(row, "answer")
        match = _LETTER.fullmatch(answer)
        if match is None or match[1] not in LETTERS[: len(choices)]:
            fix = "use the validation split: a test split hides its answers" if answer == "hidden" else "correct it"
            last = LETTERS[len(choices) - 1]
            raise RowError(MALFORMED, f"answer is {answer!r}, expected (A) to ({last}) in parentheses; {fix}.")
        return Item(
            row=ParsedRow(
                id=id,
                filename=str(row.get("filename") or id),
                turns=((asked, answer),),
                qa_info=("multiple_choice", string_field(row, category)),
            ),
            number=number,
            image=str(row.get("filename") or id),
            choices=choices,
            group=string_field(row, group),
        )
    except RowError as error:
        raise RowError(error.code, f"{place}, id {row.get('idx', 'absent')!r}: {error}") from error


def _id(row: JsonObject) -> str:
    value = field(row, "idx")
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise RowError(MALFORMED, f"idx is {value!r}, expected text or a whole number.")
    return str(value)


def _choice(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RowError(MALFORMED, f"a choice is {value!r}, expected text.")
    return value.strip()

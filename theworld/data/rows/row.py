"""One row of a source: a conversation about one image. What every format of rows is parsed to, and shared checks.

A format (`osd`, `llava`, `vsr`) turns the JSON of a row into a `ParsedRow`; whoever holds the images knows the file
that its `filename` means, which makes it a `Row`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Protocol

from theworld.data.pictures.masks import Rle
from theworld.data.pictures.regions import Box, Turn
from theworld.data.rows.faults import BAD_CONVERSATION, MALFORMED, NO_TARGETS, RowError

_CONTROL = re.compile(r"<(?:start|end)_of_(?:turn|image)>|<image_soft_token>|<(?:bos|eos|pad|unk)>|<unused\d+>|<image>")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LEADING_IMAGE = re.compile(r"^\s*<image>\s*")

JsonObject = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class ParsedRow:
    """One row as its source has it, checked as far as the text alone allows.

    Attributes:
        id: The row's own name, unique in its source.
        filename: The image as the row names it: a path below the image folder, with or without its extension.
        turns: Questions and answers, with `<mask>` placeholders and turn-local region names; `<image>` removed.
        boxes: One box a `<mask>`, in order of mention over all questions.
        rles: One COCO mask a box, or None.
        qa_info: (type, category) of a benchmark question, or None.
    """

    id: str
    filename: str
    turns: tuple[Turn, ...]
    boxes: tuple[Box, ...] = ()
    rles: tuple[Rle, ...] | None = None
    qa_info: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row whose image is known.

    Attributes:
        id: The row's own name, unique in its source.
        index: Row number in the file.
        image: Path of the image below the image folder, with its real extension.
        turns: Questions and answers, with `<mask>` placeholders and turn-local region names; `<image>` removed.
        boxes: One box a `<mask>`, in order of mention over all questions.
        rles: One COCO mask a box, or None.
        qa_info: (type, category) of a benchmark question, or None.
    """

    id: str
    index: int
    image: str
    turns: tuple[Turn, ...]
    boxes: tuple[Box, ...]
    rles: tuple[Rle, ...] | None
    qa_info: tuple[str, str] | None


class RowFormat(Protocol):
    """How the JSON of one row is understood."""

    @property
    def name(self) -> str:
        """Name of the format, as the settings and the header of an index have it."""

    def parse(self, raw: bytes, *, number: int, where: str) -> ParsedRow:
        """Parse and check one row.

        Args:
            raw: The JSON of the row.
            number: Row number in the source, for rows without an id.
            where: File, row and byte offset, for messages.

        Raises:
            RowError: `{where}, id ...:` what was found, what was expected, how to fix it.
        """


def parse_object(raw: bytes, *, where: str) -> JsonObject:
    """The JSON object of a row.

    Raises:
        RowError: Not valid JSON, no object, a key that occurs twice in an object, NaN or Infinity, nested too deep, or
            text that cannot be encoded.
    """
    try:
        row = json.loads(raw, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
        if _SURROGATE.search(raw):
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RowError(
            MALFORMED, f"{where}: holds half of a surrogate pair ({ascii(error.object[error.start])}); remove it."
        ) from error
    except (ValueError, RecursionError) as error:
        raise RowError(MALFORMED, f"{where}: not valid JSON ({error}); repair or remove the row.") from error
    if not isinstance(row, dict):
        raise RowError(MALFORMED, f"{where}: found {type(row).__name__}, expected an object.")
    return row


def field(row: JsonObject, key: str) -> object:
    """The value of a key that must be there."""
    if key not in row:
        raise RowError(MALFORMED, f"key {key!r} is missing, found {sorted(row)}; add it.")
    return row[key]


def string_field(row: JsonObject, key: str) -> str:
    """The value of a key that must hold text."""
    value = field(row, key)
    if not isinstance(value, str) or not value:
        raise RowError(MALFORMED, f"{key} is {value!r}, expected a string that is not empty.")
    return value


def list_field(row: JsonObject, key: str) -> list[object]:
    """The value of a key that must hold a list."""
    value = field(row, key)
    if not isinstance(value, list):
        raise RowError(MALFORMED, f"{key} is of type {type(value).__name__}, expected a list.")
    return value


def identity(row: JsonObject, default: str) -> str:
    """The row's `id` as text, or `default` if it has none."""
    value = row.get("id", default)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise RowError(MALFORMED, f"id is {value!r}, expected a string or a whole number.")
    return str(value)


def conversation_turns(messages: list[object]) -> tuple[Turn, ...]:
    """Questions and answers of {"from": "human" | "gpt", "value"} messages, a leading `<image>` removed.

    Raises:
        RowError: No messages, one without an answer, out of turn, empty, or with a control token of the model.
    """
    values: list[str] = []
    for number, message in enumerate(messages):
        speaker = ("human", "gpt")[number % 2]
        if not isinstance(message, dict) or not isinstance(message.get("value"), str):
            raise RowError(
                MALFORMED, f"message {number} is {message!r}, expected {{'from': {speaker!r}, 'value': text}}."
            )
        if message.get("from") != speaker:
            raise RowError(
                BAD_CONVERSATION,
                f"message {number} is from {message.get('from')!r}, expected {speaker!r}; "
                "conversations must alternate human, gpt, beginning with human.",
            )
        value = message["value"]
        values.append(plain_text(_LEADING_IMAGE.sub("", value) if number == 0 else value, number, speaker))
    if not values or len(values) % 2:
        raise RowError(
            BAD_CONVERSATION,
            f"found {len(values)} messages, expected questions and answers in pairs; add the missing answer.",
        )
    return tuple(zip(values[0::2], values[1::2], strict=True))


def plain_text(value: str, number: int, speaker: str) -> str:
    """One message's text, stripped.

    Args:
        value: The text.
        number: Of the message, for errors.
        speaker: `human` asks; `gpt` answers, and an empty answer is nothing to learn from.

    Raises:
        RowError: The text is empty, or contains a control token of the model.
    """
    value = value.strip()
    if not value:
        code = NO_TARGETS if speaker == "gpt" else BAD_CONVERSATION
        raise RowError(code, f"message {number} from {speaker!r} is empty; remove its turn.")
    if match := _CONTROL.search(value):
        raise RowError(
            BAD_CONVERSATION,
            f"message {number} contains {match.group()!r}, which is a control token of the model; remove it.",
        )
    return value


def qa_info(row: JsonObject) -> tuple[str, str] | None:
    """(type, category) of a benchmark question, or None."""
    info = row.get("qa_info")
    if info is None:
        return None
    if not isinstance(info, dict) or not isinstance(info.get("type"), str) or not isinstance(info.get("category"), str):
        raise RowError(MALFORMED, f"qa_info is {info!r}, expected {{'type': text, 'category': text}}.")
    return info["type"], info["category"]


def _unique_keys(pairs: list[tuple[str, object]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")

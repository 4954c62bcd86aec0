"""Rows of the Open Spatial Dataset on disk: one conversation about one image, checked when it is read.

The schema (SpatialRGPT's): `filename` without extension, `conversations` of {"from": "human" | "gpt", "value"},
`bbox` with one box a `<mask>`, optionally `rle` masks, `id`, and `qa_info` {type, category} as in SpatialRGPT-Bench.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from theworld.data.json_rows import JsonRows
from theworld.data.masks import Rle
from theworld.data.regions import Box, Turn, count_masks

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")

_CONTROL = re.compile(r"<(?:start|end)_of_(?:turn|image)>|<image_soft_token>|<(?:bos|eos|pad|unk)>|<unused\d+>")
_LEADING_IMAGE = re.compile(r"^\s*<image>\s*")
_Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class OSDRow:
    """One row, as the data set has it.

    Attributes:
        id: The row's `id`, else its file name and row number.
        index: Row number in the file.
        image_path: An existing file below the image folder.
        turns: Questions and answers, with `<mask>` placeholders and turn-local region names; `<image>` removed.
        boxes: One box a `<mask>`, in order of mention over all questions.
        rles: One COCO mask a box, or None.
        qa_info: (type, category) of a benchmark question, or None.
    """

    id: str
    index: int
    image_path: Path
    turns: tuple[Turn, ...]
    boxes: tuple[Box, ...]
    rles: tuple[Rle, ...] | None
    qa_info: tuple[str, str] | None


class OSDRows:
    """A lazy list of rows; a row is read and checked when it is asked for.

    Args:
        path: JSON array or JSON Lines.
        image_folder: Folder below which every image lies.

    Raises:
        ValueError: From construction or from `rows[i]`, naming file, row, byte offset, id and the remedy.
    """

    def __init__(self, path: str | Path, *, image_folder: str | Path):
        self.path = Path(path)
        self.image_folder = Path(image_folder)
        if not self.image_folder.is_dir():
            raise ValueError(
                f"image folder {self.image_folder} does not exist (for the rows of {self.path}); "
                "unpack the images there or correct the path."
            )
        self._root = self.image_folder.resolve()
        self._rows = JsonRows(path)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> OSDRow:
        """Read, parse and check one row."""
        raw = self._rows[index]
        where = f"{self.path}, row {index} (byte {int(self._rows.offsets[index])})"
        try:
            row = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not valid JSON ({error}); repair or remove the row.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: found {type(row).__name__}, expected an object.")
        try:
            filename = _string(row, "filename")
            identity = row.get("id", f"{filename}#{index}")
            if isinstance(identity, bool) or not isinstance(identity, (str, int)):
                raise ValueError(f"id is {identity!r}, expected a string or a whole number.")
            boxes = _boxes(row)
            turns = _turns(row)
            if count_masks(turns) != len(boxes):
                raise ValueError(
                    f"found {count_masks(turns)} <mask> in the human turns and {len(boxes)} entries in bbox, expected "
                    "one box a <mask>, in order of mention; add or remove boxes."
                )
            return OSDRow(
                id=str(identity),
                index=index,
                image_path=self._find_image(filename),
                turns=turns,
                boxes=boxes,
                rles=_rles(row, len(boxes)),
                qa_info=_qa_info(row),
            )
        except ValueError as error:
            raise ValueError(f"{where}, id {row.get('id', 'absent')!r}: {error}") from error

    def _find_image(self, filename: str) -> Path:
        relative = Path(filename)
        if relative.is_absolute() or ".." in relative.parts or "\\" in filename or "\0" in filename:
            raise ValueError(f"filename {filename!r} must be a plain path below the image folder; correct it.")
        names = [filename + extension for extension in EXTENSIONS]
        if relative.suffix.lower() in EXTENSIONS:
            names.insert(0, filename)
        for name in names:
            candidate = self._root / name
            if candidate.is_file():
                if not candidate.resolve().is_relative_to(self._root):
                    raise ValueError(
                        f"image {name!r} is a link to outside {self.image_folder}; copy the image into the folder."
                    )
                return candidate
        raise ValueError(
            f"found no image {filename!r} with any of {', '.join(EXTENSIONS)} in {self.image_folder}; "
            "fetch the image, or remove the row."
        )


def _get(row: _Json, key: str) -> object:
    if key not in row:
        raise ValueError(f"key {key!r} is missing, found {sorted(row)}; add it.")
    return row[key]


def _string(row: _Json, key: str) -> str:
    value = _get(row, key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {value!r}, expected a string that is not empty.")
    return value


def _list(row: _Json, key: str) -> list[object]:
    value = _get(row, key)
    if not isinstance(value, list):
        raise ValueError(f"{key} is of type {type(value).__name__}, expected a list.")
    return value


def _turns(row: _Json) -> tuple[Turn, ...]:
    values: list[str] = []
    for number, message in enumerate(_list(row, "conversations")):
        speaker = ("human", "gpt")[number % 2]
        if not isinstance(message, dict) or not isinstance(message.get("value"), str):
            raise ValueError(f"message {number} is {message!r}, expected {{'from': {speaker!r}, 'value': text}}.")
        if message.get("from") != speaker:
            raise ValueError(
                f"message {number} is from {message.get('from')!r}, expected {speaker!r}; "
                "conversations must alternate human, gpt, beginning with human."
            )
        value = message["value"]
        if number == 0:
            value = _LEADING_IMAGE.sub("", value)
        value = value.strip()
        if not value:
            raise ValueError(f"message {number} from {speaker!r} is empty; remove its turn.")
        if match := _CONTROL.search(value) or re.search("<image>", value):
            raise ValueError(
                f"message {number} contains {match.group()!r}, which is a control token of the model; remove it."
            )
        values.append(value)
    if not values or len(values) % 2:
        raise ValueError(
            f"found {len(values)} messages, expected questions and answers in pairs; add the missing answer."
        )
    return tuple(zip(values[0::2], values[1::2], strict=True))


def _boxes(row: _Json) -> tuple[Box, ...]:
    boxes = []
    for number, box in enumerate(_list(row, "bbox")):
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
            raise ValueError(f"bbox {number} is {box!r}, expected four finite numbers [left, top, right, bottom].")
        boxes.append((float(box[0]), float(box[1]), float(box[2]), float(box[3])))
    return tuple(boxes)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _rles(row: _Json, expected: int) -> tuple[Rle, ...] | None:
    if not row.get("rle"):
        return None
    rles = _list(row, "rle")
    if len(rles) != expected:
        raise ValueError(f"found {len(rles)} entries in rle and {expected} in bbox, expected as many.")
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
    raise ValueError(f"rle {number} is {str(rle)[:80]}, expected {{'size': [height, width], 'counts': text or list}}.")


def _qa_info(row: _Json) -> tuple[str, str] | None:
    info = row.get("qa_info")
    if info is None:
        return None
    if not isinstance(info, dict) or not isinstance(info.get("type"), str) or not isinstance(info.get("category"), str):
        raise ValueError(f"qa_info is {info!r}, expected {{'type': text, 'category': text}}.")
    return info["type"], info["category"]

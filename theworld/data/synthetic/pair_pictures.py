"""Pictures of two shapes with one easy question each: what the audit's controls are trained on.

Simple enough that a tiny model learns to answer from either of its towers alone, by its world projector only, in a few
hundred steps. Which tower may see the picture is for `data.blank_image` to say; rows and pictures are the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image, ImageDraw
from rich.progress import track

from theworld.data.synthetic.questions import MASK
from theworld.data.synthetic.relations import RELATIONS
from theworld.data.synthetic.rows import Message, QaInfo


class PairRow(TypedDict):
    """One question about one picture, in OSD's schema; without masks."""

    id: str
    filename: str
    conversations: list[Message]
    bbox: list[list[int]]
    qa_info: QaInfo


Box = tuple[int, int, int, int]

SPLITS = ("train", "val", "test")
_LARGE, _SMALL = (0.38, 0.47), (0.13, 0.22)
"""Sides of the two shapes, as shares of the picture's."""


@dataclass(frozen=True, kw_only=True)
class PairPictures:
    """Draw pictures of a large and a small shape in OSD's schema; is the first region the bigger one?

    Half of the answers are yes, and neither the text nor the places of the shapes tell which.

    Args:
        output: Folder to write to: `<split>.json` and `<split>/*.png` for `train`, `val` and `test`.
        seed: Start of every random stream.
        num_train: Training pictures.
        num_val: Validation pictures.
        num_test: Test pictures.
        image_size: Side of the square pictures in pixels.
    """

    output: str
    seed: int = 0
    num_train: int = 2000
    num_val: int = 40
    num_test: int = 300
    image_size: int = 64

    def __post_init__(self) -> None:
        for name, least in (("num_train", 1), ("num_val", 1), ("num_test", 1), ("image_size", 32), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")

    def generate(self) -> dict[str, Path]:
        """Write all splits, over those of an earlier call; returns the paths of their rows."""
        written = {}
        for stream, (split, count) in enumerate(
            zip(SPLITS, (self.num_train, self.num_val, self.num_test), strict=True)
        ):
            folder = Path(self.output).expanduser() / split
            folder.mkdir(parents=True, exist_ok=True)
            rows = []
            for number in track(range(count), description=f"Drawing {split} pictures"):
                rng = np.random.default_rng((self.seed, stream, number))
                picture, row = draw_pair(rng, id=f"{split}-{number:06d}", side=self.image_size, yes=number % 2 == 0)
                picture.save(folder / f"{row['filename']}.png")
                rows.append(row)
            written[split] = folder.with_suffix(".json")
            written[split].write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
        return written


def draw_pair(rng: np.random.Generator, *, id: str, side: int, yes: bool) -> tuple[Image.Image, PairRow]:
    """A picture and its row.

    Args:
        rng: Of colours, kinds, sizes and places.
        id: Of the row and the picture.
        side: Of the picture, in pixels.
        yes: Whether the answer is yes.
    """
    ground = rng.integers(60, 200, 3) + rng.normal(0, 6, (side, side, 3))
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    large_first = bool(rng.random() < 0.5)  # on the left
    boxes = [
        _shape(draw, rng, side=side, left=k * side // 2, share=_LARGE if (k == 0) == large_first else _SMALL)
        for k in range(2)
    ]
    first = 0 if large_first == yes else 1
    return picture, {
        "id": id,
        "filename": id,
        "conversations": [
            {"from": "human", "value": f"<image>\nIs {MASK} {RELATIONS['big'].phrase} {MASK}?"},
            {"from": "gpt", "value": "Yes." if yes else "No."},
        ],
        "bbox": [list(boxes[first]), list(boxes[1 - first])],
        "qa_info": {"type": "qualitative", "category": "big_predicate"},
    }


def _shape(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, *, side: int, left: int, share: tuple[float, float]
) -> Box:
    """Draw a rectangle or an ellipse within the half of the picture that begins at `left`."""
    size = int(rng.integers(int(share[0] * side), int(share[1] * side)))
    x = int(rng.integers(left + 1, max(left + side // 2 - size, left + 2)))
    y = int(rng.integers(1, side - size - 1))
    box = (x, y, x + size, y + size)
    red, green, blue = rng.integers(0, 256, 3).tolist()
    (draw.rectangle if rng.random() < 0.5 else draw.ellipse)(box, fill=(red, green, blue))
    return box

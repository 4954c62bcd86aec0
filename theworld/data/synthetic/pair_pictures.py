"""Pictures of two shapes, with one easy question each: what the audit's controls are trained and audited on.

Simple enough that a tiny model learns to answer from either tower alone in a few hundred steps. Which tower may see the
picture is not decided here but by `data.blank_image`; rows, images and questions are the same for all controls.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.progress import track

from theworld.data.synthetic.questions import MASK, relation_turn
from theworld.data.synthetic.relations import RELATIONS

Box = tuple[int, int, int, int]

_SPLITS = ("train", "val", "test")
_SHAPES = ("rectangle", "ellipse")


@dataclass(frozen=True, kw_only=True)
class PairPictures:
    """Two shapes side by side in OSD's schema, and the question which of them is on the left.

    Args:
        output: Folder to write to: `<split>.json` and `<split>/*.png`.
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
    word: str = "left"

    def generate(self) -> None:
        counts = dict(zip(_SPLITS, (self.num_train, self.num_val, self.num_test), strict=True))
        for number, (split, count) in enumerate(counts.items()):
            folder = Path(self.output) / split
            folder.mkdir(parents=True, exist_ok=True)
            rows = []
            for i in track(range(count), description=f"Drawing {split} pictures"):
                rng = np.random.default_rng((self.seed, number, i))
                picture, row = self._draw(rng, f"{split}-{i:06d}", yes=i % 2 == 0)
                picture.save(folder / f"{row['id']}.png")
                rows.append(row)
            (Path(self.output) / f"{split}.json").write_text(json.dumps(rows, indent=0))

    def _draw(self, rng, id, *, yes):
        side = self.image_size
        base = rng.integers(60, 200, 3)
        noise = rng.normal(0, 6, (side, side, 3))
        image = Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        boxes = []
        sizes = [int(rng.integers(side * 22 // 64, side * 28 // 64)) for _ in range(2)]
        if self.word == "big":
            sizes = [
                int(rng.integers(side * 24 // 64, side * 30 // 64)),
                int(rng.integers(side * 8 // 64, side * 14 // 64)),
            ]
            if rng.random() < 0.5:
                sizes = sizes[::-1]
        for k in range(2):
            s = sizes[k]
            x = int(rng.integers(k * side // 2 + 1, (k + 1) * side // 2 - s))
            y = int(rng.integers(1, side - s - 1))
            boxes.append((x, y, x + s, y + s))
            colour = tuple(int(c) for c in rng.integers(0, 256, 3))
            getattr(draw, str(rng.choice(_SHAPES)))(boxes[-1], fill=colour)
        if self.word == "left":
            first = 0 if yes else 1
        else:
            bigger = 0 if sizes[0] > sizes[1] else 1
            first = bigger if yes else 1 - bigger
        order = (first, 1 - first)
        question, answer = f"Is {MASK} {RELATIONS[self.word].phrase} {MASK}?", "Yes." if yes else "No."
        return image, {
            "id": id,
            "filename": id,
            "conversations": [{"from": "human", "value": "<image>\n" + question}, {"from": "gpt", "value": answer}],
            "bbox": [list(boxes[i]) for i in order],
            "qa_info": {"type": "qualitative", "category": f"{self.word}_predicate"},
        }

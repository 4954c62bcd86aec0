"""Pairs of frames: an object comes closer or goes away; rows in OSD's schema show the first frame only.

Every first frame is asked about twice, once with either answer, so whoever sees it alone is right half of the time
whatever the rule. The second frame alone says something, as it must: of two sizes that are drawn from one distribution,
neither can always be the larger. The first sizes have a wide range beside the change, so that it says little: the best
rule that sees it alone is right in 1/2 + CHANGE / (range of FIRST) of the rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from rich.progress import track

from theworld.data.synthetic.pair_pictures import PairRow

SPLITS = ("train", "test")
QUESTION = "<image>\nDoes the object come closer?"
ANSWERS = {"yes": "Yes.", "no": "No."}
FIRST = (0.2, 0.8)
"""Sides of the object in the first frame, as shares of the picture's; even between them."""

CHANGE = 0.14
"""So much longer or shorter are they in the second."""

_CENTRE = (0.485, 0.515)
"""Where its middle is, in both frames; the largest just fits."""


@dataclass(frozen=True, kw_only=True)
class MotionPictures:
    """Draw scenes of two rows each: the object comes closer, and it goes away, from the same first frame.

    Args:
        output: Folder to write to: `<split>.json`, `<split>/*.png` (first frames), `<split>_second/*.png` and
            `<split>_sides.json` (by row, the object's sides in both).
        seed: Start of every random stream.
        num_train: Training scenes.
        num_test: Test scenes.
        image_size: Side of the square pictures in pixels.
    """

    output: str
    seed: int = 0
    num_train: int = 800
    num_test: int = 200
    image_size: int = 64

    def __post_init__(self) -> None:
        for name, least in (("num_train", 1), ("num_test", 1), ("image_size", 32), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"found {name}={getattr(self, name)}, expected at least {least}; give a larger one")

    def generate(self) -> dict[str, Path]:
        """Write all splits, over those of an earlier call; returns the paths of their rows."""
        written = {}
        counts = (self.num_train, self.num_test)
        for stream, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
            folder = Path(self.output).expanduser() / split
            second = folder.with_name(f"{split}_second")
            for each in (folder, second):
                each.mkdir(parents=True, exist_ok=True)
            rows: list[PairRow] = []
            sides: dict[str, list[float]] = {}
            for number in track(range(count), description=f"Drawing {split} scenes"):
                rng = np.random.default_rng((self.seed, stream, number))
                scene = Scene.draw(rng, side=self.image_size)
                for name, after in scene.second.items():
                    rows.append(_row(f"{split}-{number:05d}-{name}", ANSWERS[name]))
                    _save(scene.first, folder, rows[-1]["id"])
                    _save(after, second, rows[-1]["id"])
                    sides[rows[-1]["id"]] = [scene.sides["first"], scene.sides[name]]
            folder.with_name(f"{split}_sides.json").write_text(json.dumps(sides, indent=1) + "\n")
            written[split] = folder.with_suffix(".json")
            written[split].write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
        return written


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Frames of one object.

    Attributes:
        first: What every row of the scene shows.
        second: By the key of the answer that is true of it.
        sides: The object's side as a share of the picture's, in the first frame and by the key of the answer.
    """

    first: Image.Image
    second: dict[str, Image.Image]
    sides: dict[str, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, *, side: int) -> Scene:
        """A scene of random ground, kind, colour, place and size.

        Args:
            rng: Of all of these.
            side: Of the picture, in pixels.
        """
        ground = rng.integers(60, 200, 3) + rng.normal(0, 6, (side, side, 3))
        is_rectangle, colour = bool(rng.random() < 0.5), rng.integers(0, 256, 3).tolist()
        middle = rng.uniform(*_CENTRE, 2) * side
        share = rng.uniform(*FIRST)
        sides = {"first": share, "yes": share + CHANGE, "no": share - CHANGE}
        drawn = {}
        for name, size in ((name, share * side) for name, share in sides.items()):
            frame = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
            pen = ImageDraw.Draw(frame)
            (x, y), half = middle.tolist(), size / 2
            (pen.rectangle if is_rectangle else pen.ellipse)(
                (x - half, y - half, x + half, y + half), fill=tuple(colour)
            )
            drawn[name] = frame
        return cls(first=drawn.pop("first"), second=drawn, sides=sides)


def _row(id: str, answer: str) -> PairRow:
    return {
        "id": id,
        "filename": id,
        "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": answer}],
        "bbox": [],
        "qa_info": {"type": "qualitative", "category": "closer_predicate"},
    }


def _save(frame: Image.Image, folder: Path, id: str) -> None:
    """With the row's id in the file: rows of one scene show the same pixels, and a cache has an entry a file."""
    note = PngInfo()
    note.add_text("id", id)
    frame.save(folder / f"{id}.png", pnginfo=note)

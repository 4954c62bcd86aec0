"""Write a large file in OSD's schema, fast: many rows about few photos, with masks and conversations of OSD's size.

    python experiments/speed/data/make_osd.py --output /tmp/osd --gigabytes 2.1

A row of OSD has some 35 kB, nearly all of it run-length masks: here it mentions 20 regions in 10 turns, each with a
mask of some 1.5 kB. Regions are drawn once a photo and joined as text, so that writing costs what the disk costs. The
same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco
from rich.progress import Progress

TURNS = 10
REGIONS = 24
PREDICATES = ("to the left of", "to the right of", "above", "below", "in front of", "behind", "taller than")
OPENINGS = ("Is", "Would you say that", "From this viewpoint, is", "Can you confirm that", "Looking at the picture, is")
REASONS = (
    "judging from where they stand in the picture",
    "as the outlines of the two make plain",
    "although they are close to one another",
    "if the distance to the camera is taken into account",
)
BROKEN = {
    "not JSON": '{"id": "%d", "filename": "photo00", "conversations": [{"from": "human" "value": "?"}], "bbox": []}',
    "a box too few": '{"id": "%d", "filename": "photo00", "conversations": [{"from": "human", "value": "<image>\\nIs '
    '<mask> here?"}, {"from": "gpt", "value": "Yes."}], "bbox": []}',
    "no such photo": '{"id": "%d", "filename": "absent", "conversations": [{"from": "human", "value": "<image>\\nIs it '
    'here?"}, {"from": "gpt", "value": "No."}], "bbox": []}',
}
"""Rows that an index must refuse, each for one reason."""


class Shown(NamedTuple):
    """A region of a photo, as JSON text."""

    box: str
    rle: str


def photo(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Noise whose spectrum falls off like that of photographs: a JPEG of quality 90 has some 0.5 bytes a pixel."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falloff = 1 / np.maximum(np.hypot(rows, columns), 1 / max(width, height)) ** 1.35
    planes = []
    for strength in (48, 14, 14):  # luma, two chromas
        phases = rng.normal(size=falloff.shape) + 1j * rng.normal(size=falloff.shape)
        plane = np.fft.irfft2(phases * falloff, s=(height, width))
        planes.append(128 + strength * (plane - plane.mean()) / plane.std())
    planes[0] += rng.normal(scale=4.5, size=(height, width))  # the sensor's
    pixels = np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels, mode="YCbCr").convert("RGB")


def region(rng: np.random.Generator, width: int, height: int) -> Shown:
    """A lump with a ragged outline, as masks that a network predicts have."""
    radius = rng.uniform(0.08, 0.28) * min(width, height)
    centre = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    outline = np.ones(720)
    for wave in range(2, 60):
        outline += rng.normal(scale=0.5 / wave) * np.cos(wave * angles + rng.uniform(0, 6.3))
    y, x = np.mgrid[:height, :width]
    turn = (np.arctan2(y - centre[1], x - centre[0]) % (2 * np.pi) / (2 * np.pi) * 720).astype(int) % 720
    distance = np.hypot(x - centre[0], y - centre[1]) + rng.normal(scale=0.7, size=(height, width))
    mask = distance < radius * np.clip(outline, 0.3, 1.6)[turn]
    packed = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    left, top, wide, tall = (round(float(side), 1) for side in coco.toBbox(packed))
    rle = {"size": [height, width], "counts": packed["counts"].decode()}
    return Shown(box=json.dumps([left, top, left + wide, top + tall]), rle=json.dumps(rle))


def row(rng: random.Random, number: int, filename: str, shown: list[Shown]) -> str:
    """One row: ten turns about two regions each; regions come back in later turns, as OSD's do."""
    talk, mentioned = [], []
    for turn in range(TURNS):
        mentioned += rng.sample(shown, 2)
        opening, predicate = rng.choice(OPENINGS), rng.choice(PREDICATES)
        question = f"{opening} <mask> <depth> {predicate} <mask> <depth>?"
        answer = f"{rng.choice(('Yes', 'No'))}, Region [0] is {predicate} Region [1], {rng.choice(REASONS)}."
        start = "<image>\\n" if turn == 0 else ""
        talk.append(f'{{"from": "human", "value": "{start}{question}"}}, {{"from": "gpt", "value": "{answer}"}}')
    return (
        f'{{"id": "{number}", "filename": "{filename}", "conversations": [{", ".join(talk)}], '
        f'"bbox": [{", ".join(region.box for region in mentioned)}], '
        f'"rle": [{", ".join(region.rle for region in mentioned)}]}}'
    )


def write(
    output: Path, *, size: int, photos: int, width: int, height: int, seed: int, broken: bool, lines: bool
) -> Path:
    """Photos and rows below `output`; the rows have at least `size` bytes."""
    images = output / "images"
    images.mkdir(parents=True, exist_ok=True)
    shown = []
    for number in range(photos):
        numbers = np.random.default_rng((seed, number))
        photo(numbers, width, height).save(images / f"photo{number:02d}.jpg", quality=90)
        shown.append([region(numbers, width, height) for _ in range(REGIONS)])
    rng = random.Random(seed)
    path = output / ("rows.jsonl" if lines else "rows.json")
    opening, between, closing = ("", "\n", "\n") if lines else ("[", ",\n", "]\n")
    defects = list(BROKEN.values()) if broken else []
    written = count = 0
    with path.open("w", encoding="ascii", buffering=1 << 22) as file, Progress() as progress:
        task = progress.add_task(f"writing {path}", total=size)
        file.write(opening)
        while written < size:
            if defects and written >= size // 2:  # in the middle, one after another
                text = defects.pop() % count
            else:
                text = row(rng, count, f"photo{count % photos:02d}", shown[count % photos])
            written += file.write(between + text if count else text)
            count += 1
            progress.update(task, completed=written)
        file.write(closing)
    print(f"{path}: {count} rows, {path.stat().st_size} bytes; {photos} photos in {images}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--gigabytes", type=float, default=2.1, help="size of the rows, in 10^9 bytes")
    parser.add_argument("--photos", type=int, default=32, help="how many photos the rows share")
    parser.add_argument("--width", type=int, default=640, help="of a photo, in pixels")
    parser.add_argument("--height", type=int, default=480, help="of a photo, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--broken", action="store_true", help="put one row of each defect into the middle")
    parser.add_argument("--lines", action="store_true", help="JSON Lines in place of one array")
    arguments = parser.parse_args()
    write(
        arguments.output,
        size=round(arguments.gigabytes * 1e9),
        photos=arguments.photos,
        width=arguments.width,
        height=arguments.height,
        seed=arguments.seed,
        broken=arguments.broken,
        lines=arguments.lines,
    )


if __name__ == "__main__":
    main()

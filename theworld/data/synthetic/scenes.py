"""The synthetic data set on disk: settings in, a cached folder of images and OSD rows out.

A folder holds, for each split, `<split>.json` (rows), `<split>/<scene>.jpg` and `<split>/scenes.jsonl` (the exact
truth), and `manifest.json` with every file's hash. Reading a finished folder needs no renderer.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from theworld.data.synthetic.base_questions import pretrain_rows
from theworld.data.synthetic.questions import QuestionDeck, check_weights
from theworld.data.synthetic.rows import Row, bench_rows, training_row
from theworld.data.synthetic.truth import SceneTruth

if TYPE_CHECKING:
    from theworld.data.synthetic.render import SceneRenderer

GENERATOR_VERSION = 1
"""Part of the cache key: raise it when the same settings would give other files."""

Split = Literal["train", "val", "test", "pretrain"]
_SPLIT_NUMBERS: dict[Split, int] = {"train": 0, "val": 1, "test": 2, "pretrain": 3}
JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class SyntheticPaths:
    """Where the rows and the images of each split are."""

    train_path: Path
    train_images: Path
    val_path: Path
    val_images: Path
    test_path: Path
    test_images: Path


@dataclass(frozen=True, kw_only=True)
class SyntheticScenes:
    """Household scenes with exact 3-D truth, in OSD's schema.

    Args:
        cache_dir: Parent folder of the generated data sets; one folder a combination of settings.
        seed: Start of every random stream.
        num_train: Training scenes; one conversation each.
        num_val: Validation scenes; one conversation each.
        num_test: Test scenes; `questions_per_test_scene` rows each.
        image_size: Side of the square images in pixels.
        turns_per_row: Questions in a training or validation conversation.
        categories: Question category → weight relative to the others; all 24 equally by default.
        questions_per_test_scene: One-question test rows for each test scene.
    """

    cache_dir: str = "~/.cache/theworld/synthetic"
    seed: int = 0
    num_train: int = 2000
    num_val: int = 100
    num_test: int = 100
    image_size: int = 128
    turns_per_row: int = 6
    categories: dict[str, float] | None = None
    questions_per_test_scene: int = 8

    def __post_init__(self) -> None:
        check_weights(self.categories)
        for name in ("num_train", "num_val", "num_test", "turns_per_row", "questions_per_test_scene"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; expected 0 or more")

    @property
    def directory(self) -> Path:
        """The folder of these settings: their hash under `cache_dir`."""
        settings = {k: v for k, v in asdict(self).items() if k != "cache_dir"}
        settings["categories"] = dict(sorted(check_weights(self.categories).items()))
        settings["generator_version"] = GENERATOR_VERSION
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return Path(self.cache_dir).expanduser() / key[:16]

    def generate(self, progress: bool = True) -> SyntheticPaths:
        """Draws the data set, or finds it in the cache and verifies it.

        Args:
            progress: Show a progress bar.

        Raises:
            ValueError: A file of the cached data set is missing or differs from its manifest.
        """
        target = self.directory
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            try:
                self._write(draft, progress)
                _publish(draft, target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        verify(target)
        return SyntheticPaths(
            train_path=target / "train.json",
            train_images=target / "train",
            val_path=target / "val.json",
            val_images=target / "val",
            test_path=target / "test.json",
            test_images=target / "test",
        )

    def generate_split(
        self, split: Split, num: int, directory: Path, *, progress: bool = True, first: int = 0
    ) -> list[SceneTruth]:
        """Writes `<split>.json`, the images and `scenes.jsonl` of scenes `first` to `first + num` to a folder.

        The `pretrain` split gets base questions, one row a scene; the others get the 24 categories.
        """
        from theworld.data.synthetic.render import SceneRenderer  # needs mujoco: only where something is drawn

        images = directory / split
        images.mkdir(parents=True)
        renderer = SceneRenderer(self.image_size)
        deck = QuestionDeck(self.categories, balance_answers=split == "test")
        rows: list[Row] = []
        scenes: list[SceneTruth] = []
        numbers = range(first, first + num)
        try:
            for number in track(numbers, description=f"Drawing {split} scenes", disable=not progress):
                rgb, scene = draw_scene(renderer, seed=self.seed, split=split, number=number)
                (images / f"{scene.id}.jpg").write_bytes(encode_jpeg(rgb))
                scenes.append(scene)
                rows += self._rows(scene, split, number, deck)
        finally:
            renderer.close()
        (images / "scenes.jsonl").write_text("".join(scene.to_json() + "\n" for scene in scenes))
        lines = ",\n".join(json.dumps(row) for row in rows)
        (directory / f"{split}.json").write_text(f"[\n{lines}\n]\n")
        return scenes

    def _rows(self, scene: SceneTruth, split: Split, number: int, deck: QuestionDeck) -> list[Row]:
        rng = np.random.default_rng((self.seed, _SPLIT_NUMBERS[split], number, 1))
        if split == "pretrain":
            return pretrain_rows(scene, rng, turns_per_row=self.turns_per_row)
        if split == "test":
            return bench_rows(scene, deck, rng, questions=self.questions_per_test_scene)
        row = training_row(scene, deck, rng, turns=self.turns_per_row)
        return [] if row is None else [row]

    def _write(self, draft: Path, progress: bool) -> None:
        counts: dict[Split, int] = {"train": self.num_train, "val": self.num_val, "test": self.num_test}
        for split, num in counts.items():
            self.generate_split(split, num, draft, progress=progress)
        manifest = {
            "settings": {k: v for k, v in asdict(self).items() if k != "cache_dir"},
            "generator_version": GENERATOR_VERSION,
            "scenes": counts,
            "rows": {split: len(json.loads((draft / f"{split}.json").read_text())) for split in counts},
            "sha256": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in _files(draft)},
        }
        (draft / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def draw_scene(
    renderer: SceneRenderer, *, seed: int, split: Split, number: int
) -> tuple[NDArray[np.uint8], SceneTruth]:
    """Scene `number` of a split: uint8[H, W, 3] and its truth, with at least three visible objects.

    Depends on its arguments only, so scenes can be drawn in any order and by any number of processes.
    """
    from theworld.data.synthetic.layout import sample_scene
    from theworld.data.synthetic.render import render_scene  # needs mujoco: only where something is drawn

    rng = np.random.default_rng((seed, _SPLIT_NUMBERS[split], number, 0))
    while True:
        scene = sample_scene(rng)
        if len(scene.objects) < 3:
            continue
        rgb, objects = render_scene(renderer, scene)
        if len(objects) >= 3:
            truth = SceneTruth(
                id=f"{split}-{number:06d}",
                setting=scene.setting,
                image_size=renderer.image_size,
                camera=scene.camera,
                objects=objects,
            )
            return rgb, truth


def encode_jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """The image as it is stored."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def verify(directory: Path) -> None:
    """Compares a finished data set with its manifest.

    Raises:
        ValueError: Names the first file that is missing, unexpected or changed.
    """
    manifest_path = directory / "manifest.json"
    fix = f"remove {directory} to draw the data set again"
    if not manifest_path.is_file():
        raise ValueError(f"{directory} has no manifest.json, expected a finished synthetic data set; {fix}")
    expected = json.loads(manifest_path.read_text())["sha256"]
    found = {name: path for name, path in _files(directory) if name != "manifest.json"}
    if stray := sorted(set(expected) ^ set(found)):
        raise ValueError(f"{directory}: {stray[0]} is {'missing' if stray[0] in expected else 'unexpected'}; {fix}")
    for name, path in found.items():
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected[name]:
            raise ValueError(f"{path} differs from its hash in {manifest_path}; {fix}")


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path.relative_to(directory).as_posix(), path


def _publish(draft: Path, target: Path) -> None:
    """Renames the finished folder into place; if another process was faster, its result stands."""
    try:
        os.rename(draft, target)
    except OSError:
        if not target.exists():
            raise

"""A small synthetic data set and a handful of drawn scenes, made once a session."""

from __future__ import annotations

import json

import numpy as np
import pytest

from theworld.data.synthetic import SyntheticPaths, SyntheticScenes
from theworld.data.synthetic.render import SceneRenderer
from theworld.data.synthetic.scenes import draw_scene
from theworld.data.synthetic.truth import SceneTruth


@pytest.fixture(scope="session")
def renderer():
    renderer = SceneRenderer(96)
    yield renderer
    renderer.close()


@pytest.fixture(scope="session")
def drawn(renderer: SceneRenderer) -> list[tuple[np.ndarray, SceneTruth]]:
    return [draw_scene(renderer, seed=5, split="train", number=n) for n in range(40)]


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> SyntheticScenes:
    cache = tmp_path_factory.mktemp("synthetic")
    return SyntheticScenes(cache_dir=str(cache), seed=3, num_train=12, num_val=3, num_test=30, image_size=64)


@pytest.fixture(scope="session")
def paths(settings: SyntheticScenes) -> SyntheticPaths:
    return settings.generate(progress=False)


@pytest.fixture(scope="session")
def splits(paths: SyntheticPaths) -> dict[str, tuple[list[dict], dict[str, SceneTruth]]]:
    """Split → its rows, and its scenes by id, both as read back from disk."""
    found = {}
    for split in ("train", "val", "test"):
        lines = (getattr(paths, f"{split}_images") / "scenes.jsonl").read_text().splitlines()
        scenes = {scene.id: scene for scene in map(SceneTruth.from_json, lines)}
        found[split] = json.loads(getattr(paths, f"{split}_path").read_text()), scenes
    return found

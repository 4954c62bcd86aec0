"""The motion control: a first frame that says nothing, and latents of the true second one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.motion_control import run
from experiments.motion_control.answers import Answered, accuracy, best_threshold, compare, word
from experiments.motion_control.frames import BASE, Split, cache_frames
from experiments.motion_control.pictures import CHANGE, FIRST, SPLITS, MotionPictures, Scene
from theworld.assets import resolve
from theworld.cli import main
from theworld.data.features.drawings import drawing_key, find_drawings
from theworld.data.features.store import DRAWINGS, FeatureStore
from theworld.data.rows.osd import OSDFormat
from theworld.models.world_encoder import WorldEncoder

SIDE = run.SIDE


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Pictures, an index and a cache of drawings of the test split, as `run.cache` makes them."""
    folder = tmp_path_factory.mktemp("motion")
    MotionPictures(output=str(folder / "pictures"), num_train=2, num_test=3).generate()
    return folder


def rows(folder: Path, split: str) -> list[dict]:
    return json.loads((folder / "pictures" / f"{split}.json").read_text())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_first_frame_is_shown_with_either_answer(output):
    """Whoever sees nothing else gives both rows of a scene one answer, so that one of the two is wrong."""
    for split in SPLITS:
        found = rows(output, split)
        assert [row["conversations"][1]["value"] for row in found] == ["Yes.", "No."] * (len(found) // 2)
        assert len({row["conversations"][0]["value"] for row in found}) == 1
        for yes, no in zip(found[::2], found[1::2], strict=True):
            first, other = (output / "pictures" / split / f"{row['filename']}.png" for row in (yes, no))
            assert np.array_equal(pixels(first), pixels(other))
            assert first.read_bytes() != other.read_bytes()


def test_the_second_frame_shows_what_the_answer_says(output):
    for split in SPLITS:
        for row in rows(output, split):
            first = pixels(output / "pictures" / split / f"{row['filename']}.png").astype(int)
            second = pixels(output / "pictures" / f"{split}_second" / f"{row['id']}.png").astype(int)
            changed = np.argwhere((first != second).any(axis=-1))
            assert len(changed) > 0
            object_is_there = second if row["conversations"][1]["value"] == "Yes." else first
            colours = {tuple(object_is_there[y, x]) for y, x in changed}
            assert len(colours) == 1, "what appears or goes is the object, of one colour, on a ground that stays"


def test_sizes_are_as_drawn_and_the_second_says_as_much_as_stated():
    """The best rule of the second frame alone: a threshold, or either end of the range; the first's is a coin."""
    scenes = [Scene.draw(np.random.default_rng((9, number)), side=64).sides for number in range(400)]
    first, closer, away = (np.array([scene[name] for scene in scenes]) for name in ("first", "yes", "no"))
    assert np.allclose(closer - first, CHANGE)
    assert np.allclose(first - away, CHANGE)
    assert FIRST[0] <= first.min() < FIRST[0] + 0.01 < FIRST[1] - 0.01 < first.max() <= FIRST[1]
    middle = np.mean(FIRST)
    rule = ((closer > middle).mean() + (away < middle).mean()) / 2
    assert rule == pytest.approx(0.5 + CHANGE / (FIRST[1] - FIRST[0]), abs=0.04)
    assert rule < 0.8


def test_sides_are_written_for_every_row(output):
    sides = json.loads((output / "pictures" / "test_sides.json").read_text())
    for row in rows(output, "test"):
        first, second = sides[row["id"]]
        assert (second > first) == (row["conversations"][1]["value"] == "Yes.")
        shown = pixels(output / "pictures" / "test_second" / f"{row['id']}.png")
        colour = shown[32, 32]
        across = (shown[32] == colour).all(axis=-1).sum()
        assert across / 64 == pytest.approx(second, abs=0.04)


@pytest.fixture(scope="module")
def indexed(output) -> Split:
    """Indexed."""
    split = run.split_of(output / "pictures", "test")
    words = [f"--rows={split.rows}", f"--images={split.images}", f"--base={BASE}", f"--output={split.index}"]
    main(["data", "index", *words, *run.INDEX, "--num_workers=0"])
    return split


@pytest.mark.parametrize("arm", run.ARMS)
def test_a_cache_holds_the_frames_of_its_arm_each_encoded_alone(indexed, tmp_path, arm):
    samples = indexed.samples(SIDE)
    find_drawings(samples.store, samples.index, row_format=OSDFormat(), progress=False).write(tmp_path / DRAWINGS)
    cache_frames(indexed, tmp_path, side=SIDE, frames=run.ARMS[arm])
    store, vae = FeatureStore(tmp_path, "world_latents"), WorldEncoder.from_pretrained(resolve(BASE))
    assert store.manifest.encoder["num_world_steps"] == "1"
    assert (store.manifest.encoder["kind"] == "true_frames") == (arm == "two_frames")
    for number, row in enumerate(json.loads(indexed.rows.read_text())):
        key = drawing_key(samples.index.text("image_sha256", number), (), "box")
        found = store.read(number, key)
        assert found.shape == (16, 2, SIDE // 8, SIDE // 8)
        paths = {"first": indexed.images / f"{row['filename']}.png", "second": indexed.second / f"{row['id']}.png"}
        for frame, shown in enumerate(run.ARMS[arm]):
            small = Image.open(paths[shown]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            seen = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 127.5 - 1
            with torch.no_grad():
                assert torch.allclose(found[:, frame], vae(seen.contiguous())[0, :, 0], atol=1e-4)


def test_a_second_frame_that_is_missing_is_an_error(indexed, tmp_path):
    samples = indexed.samples(SIDE)
    find_drawings(samples.store, samples.index, row_format=OSDFormat(), progress=False).write(tmp_path / DRAWINGS)
    with pytest.raises(FileNotFoundError, match="test-00000-yes.png"):
        cache_frames(replace(indexed, second=tmp_path / "none"), tmp_path, side=SIDE)


def test_arms_are_counted_and_compared():
    truths = ("yes", "no") * 20
    ids = tuple(f"test-{number // 2:05d}-{truth}" for number, truth in enumerate(truths))
    knows = Answered(ids=ids, answers=truths, truths=truths)
    constant = Answered(ids=ids, answers=("yes",) * 40, truths=truths)
    assert accuracy(constant) | {"interval": None} == {
        "n": 40,
        "right": 20,
        "accuracy": 0.5,
        "interval": None,
        "p_chance": 1.0,
    }
    found = compare(knows, constant)
    assert (found["only_first"], found["only_second"], found["difference"]) == (20, 0, 0.5)
    assert found["p_value"] == pytest.approx(2 * 0.5**20)
    assert found["interval_over_scenes"] == [0.5, 0.5]
    assert [word(text) for text in ("Yes.", " no", "Yes, it does.")] == ["yes", "no", "yes, it does"]
    with pytest.raises(ValueError, match="other questions"):
        compare(knows, replace(constant, ids=ids[::-1]))


def test_the_rule_of_the_second_frame_is_the_best_threshold():
    given = Answered(ids=("a", "b", "c", "d", "e"), answers=("no",) * 5, truths=("no", "yes", "no", "yes", "yes"))
    rule = best_threshold(given, {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.5})
    assert rule.answers == ("no", "yes", "yes", "yes", "yes")
    assert rule.truths == given.truths


@pytest.mark.parametrize(("field", "value"), [("num_test", 0), ("image_size", 16), ("seed", -1)])
def test_a_wrong_number_is_refused(field, value, tmp_path):
    with pytest.raises(ValueError, match=rf"found {field}={value}, expected at least"):
        MotionPictures(output=str(tmp_path), **{field: value})


@pytest.mark.slow
def test_two_frames_are_learned_and_one_is_not(tmp_path):
    """The whole at a smaller size."""
    sizes = {"num_train": 500, "num_test": 80}
    facts = run.run(tmp_path, pictures=sizes, steps=300)
    arms, against = facts["arms"], facts["comparisons"]["two_frames against first_frame_twice"]
    assert arms["first_frame_twice"]["accuracy"] == 0.5
    assert against["difference"] > 0
    assert against["p_value"] < run.LEVEL
    assert arms["two_frames_without_future"]["accuracy"] == 0.5

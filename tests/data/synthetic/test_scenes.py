"""The data set on disk: schema, determinism, splits, cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from theworld.data.synthetic import SyntheticScenes, scenes
from theworld.data.synthetic.render import SceneRenderer
from theworld.data.synthetic.scenes import draw_scene
from theworld.data.synthetic.truth import SceneTruth

OSD_KEYS = {"id", "filename", "conversations", "bbox", "rle"}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_follow_osds_schema(splits, paths, split: str):
    rows, known = splits[split]
    images = getattr(paths, f"{split}_images")
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        extra = {"text_q", "qa_info", "image_info"} if split == "test" else set()
        assert set(row) == OSD_KEYS | extra
        with Image.open(images / f"{row['filename']}.jpg") as image:
            assert image.size == (64, 64)
        speakers = [message["from"] for message in row["conversations"]]
        assert speakers == ["human", "gpt"] * (len(speakers) // 2)
        questions = [message["value"] for message in row["conversations"][::2]]
        assert [q.startswith("<image>\n") for q in questions] == [True] + [False] * (len(questions) - 1)
        assert sum(q.count("<mask> <depth>") for q in questions) == len(row["bbox"]) == len(row["rle"])
        boxes = {thing.box for thing in known[row["filename"]].objects}
        for box, rle in zip(row["bbox"], row["rle"], strict=True):
            assert tuple(box) in boxes
            x, y, width, height = coco_mask.toBbox({**rle, "counts": rle["counts"].encode()})
            assert box == [x, y, x + width, y + height]
            assert isinstance(rle["counts"], str)


def test_training_rows_hold_several_turns_and_test_rows_one(splits, settings):
    train, test = splits["train"][0], splits["test"][0]
    assert len(train) == settings.num_train
    assert {len(row["conversations"]) for row in train} == {2 * settings.turns_per_row}
    assert {len(row["conversations"]) for row in test} == {2}
    assert len(test) == settings.num_test * settings.questions_per_test_scene


def test_test_rows_name_their_regions(splits):
    for row in splits["test"][0]:
        plain = row["conversations"][0]["value"].removeprefix("<image>\n")
        for number in range(len(row["bbox"])):
            plain = plain.replace("<mask> <depth>", f"Region [{number}]", 1)
        assert row["text_q"] == plain
        quantitative = row["qa_info"]["category"].endswith("_data") or row["qa_info"]["category"] == "direction"
        assert row["qa_info"]["type"] == ("quantitative" if quantitative else "qualitative")
        assert row["image_info"] == {"file_path": f"{row['filename']}.jpg", "height": 64, "width": 64}


def test_scenes_survive_json(drawn):
    for _, scene in drawn[:3]:
        assert SceneTruth.from_json(scene.to_json()) == scene


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_equal_seeds_give_equal_bytes(tmp_path):
    small = SyntheticScenes(cache_dir=str(tmp_path / "a"), num_train=2, num_val=1, num_test=1, image_size=48)
    runs = [replace(small, cache_dir=str(tmp_path / name)) for name in "ab"]
    first, second = (files(run.generate(progress=False).train_path.parent) for run in runs)
    assert first == second
    assert len(first) == 2 + 1 + 1 + 3 + 3 + 1
    other = replace(small, seed=1).generate(progress=False)
    assert other.train_path.read_bytes() != first["train.json"]


def test_splits_are_disjoint(splits, renderer):
    def look(scene: SceneTruth) -> str:
        return json.dumps([(o.kind, o.colour, o.centre) for o in scene.objects])

    seen = [look(scene) for _, known in splits.values() for scene in known.values()]
    extra = [draw_scene(renderer, seed=3, split="pretrain", number=n)[1] for n in range(12)]
    assert len(set(seen)) == len(seen) == 12 + 3 + 30
    assert not set(seen) & {look(scene) for scene in extra}


def test_a_scene_does_not_depend_on_those_before_it(drawn):
    fresh = SceneRenderer(96)
    rgb, scene = draw_scene(fresh, seed=5, split="train", number=7)
    fresh.close()
    np.testing.assert_array_equal(rgb, drawn[7][0])
    assert scene == drawn[7][1]
    assert scene.id == "train-000007"


def test_a_second_call_draws_nothing(settings, paths, monkeypatch):
    calls = []
    monkeypatch.setattr(scenes, "draw_scene", lambda *a, **k: calls.append(k))
    assert settings.generate(progress=False) == paths
    assert calls == []
    with pytest.raises(TypeError):  # the counter works: other settings do draw
        replace(settings, seed=99).generate(progress=False)
    assert len(calls) == 1
    assert [p.name for p in settings.directory.parent.iterdir()] == [settings.directory.name]


def test_reading_a_cached_data_set_imports_no_renderer(settings, paths):
    code = (
        "import sys; from theworld.data.synthetic import SyntheticScenes; "
        f"SyntheticScenes(cache_dir={settings.cache_dir!r}, seed=3, num_train=12, num_val=3, num_test=30, "
        "image_size=64).generate(); assert 'mujoco' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "val.json").write_text("[]"), r"val.json differs from its hash .* to draw the data set again"),
        (lambda d: (d / "train" / "train-000000.jpg").unlink(), "train/train-000000.jpg is missing"),
        (lambda d: (d / "train" / "more.jpg").write_text(""), "train/more.jpg is unexpected"),
        (lambda d: (d / "manifest.json").unlink(), "has no manifest.json"),
    ],
)
def test_a_damaged_cache_is_refused(settings, paths, tmp_path, damage, message):
    copy = replace(settings, cache_dir=str(tmp_path))
    shutil.copytree(settings.directory, copy.directory)
    copy.generate(progress=False)
    damage(copy.directory)
    with pytest.raises(ValueError, match=message):
        copy.generate(progress=False)


def test_the_cache_key_covers_every_setting_but_the_folder(settings):
    assert replace(settings, cache_dir="/elsewhere").directory.name == settings.directory.name
    assert replace(settings, categories=dict.fromkeys(scenes.check_weights(None), 1.0)).directory == settings.directory
    changes = ({"seed": 4}, {"num_train": 13}, {"image_size": 65}, {"categories": {"direction": 1.0}})
    names = {replace(settings, **change).directory.name for change in changes}
    assert len(names | {settings.directory.name}) == 5


def test_categories_restrict_what_is_asked(tmp_path):
    only = SyntheticScenes(
        cache_dir=str(tmp_path), num_train=2, num_val=1, num_test=2, image_size=48, categories={"left_choice": 1.0}
    )
    rows = json.loads(only.generate(progress=False).test_path.read_text())
    assert {row["qa_info"]["category"] for row in rows} == {"left_choice"}


def test_the_pretrain_split_asks_base_questions(tmp_path, settings):
    known = settings.generate_split("pretrain", 3, tmp_path, progress=False, first=5)
    rows = json.loads((tmp_path / "pretrain.json").read_text())
    assert [scene.id for scene in known] == ["pretrain-000005", "pretrain-000006", "pretrain-000007"]
    assert [row["filename"] for row in rows] == [scene.id for scene in known]
    assert all("qa_info" not in row for row in rows)
    assert len(list((tmp_path / "pretrain").glob("*.jpg"))) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_test": 0}, "num_test is 0; expected at least 1"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"categories": {"colour": 1.0}}, "unknown question categories"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SyntheticScenes(**change)

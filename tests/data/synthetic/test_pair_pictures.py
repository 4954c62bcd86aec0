"""The controls' pictures: true answers, even chances, and nothing in text or place that tells them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from theworld.cli import main
from theworld.data.synthetic.pair_pictures import SPLITS, PairPictures
from theworld.evaluation.answers import score_answer
from theworld.types import Question


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    PairPictures(output=str(folder), num_train=200, num_val=3, num_test=4).generate()
    return folder


def rows(folder, split="train"):
    return json.loads((folder / f"{split}.json").read_text())


def area(box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def test_answers_are_true(folder):
    for row in rows(folder):
        first, second = map(area, row["bbox"])
        assert row["conversations"][1]["value"] == ("Yes." if first > second else "No.")
        assert max(first, second) > 2.5 * min(first, second)


def test_only_the_picture_tells_the_answer(folder):
    found = rows(folder)
    yes = np.array([row["conversations"][1]["value"] == "Yes." for row in found])
    first_is_left = np.array([row["bbox"][0][0] < row["bbox"][1][0] for row in found])
    assert len({row["conversations"][0]["value"] for row in found}) == 1
    assert yes.mean() == 0.5
    assert abs(yes[first_is_left].mean() - 0.5) < 0.15
    assert 0.35 < first_is_left.mean() < 0.65


def test_boxes_hold_the_shapes(folder):
    """Outside of the boxes a picture is its noisy ground."""
    for row in rows(folder)[:20]:
        pixels = np.asarray(Image.open(folder / "train" / f"{row['filename']}.png")).astype(float)
        assert pixels.shape == (64, 64, 3)
        outside = np.ones((64, 64), dtype=bool)
        for left, top, right, bottom in row["bbox"]:
            assert 0 <= left < right < 64
            assert 0 <= top < bottom < 64
            outside[top : bottom + 1, left : right + 1] = False
        assert pixels[outside].std(axis=0).max() < 9


def test_a_split_depends_on_the_seed_alone(folder, tmp_path):
    for seed, is_same in ((0, True), (1, False)):
        PairPictures(output=str(tmp_path / str(seed)), seed=seed, num_train=3, num_val=3, num_test=4).generate()
        for split in SPLITS:
            assert (rows(tmp_path / str(seed), split) == rows(folder, split)[: 4 if split == "test" else 3]) == is_same


def test_its_answers_can_be_scored(folder):
    row = rows(folder)[0]
    question = Question(
        id=row["id"],
        image_id=row["filename"],
        question="Is Region [0] bigger than Region [1]?",
        answer=row["conversations"][1]["value"],
        qa_type=row["qa_info"]["type"],
        qa_category=row["qa_info"]["category"],
    )
    assert score_answer(question, "Yes.").correct
    assert not score_answer(question, "No.").correct


def test_the_command(tmp_path, capsys):
    main(["data", "pairs", f"--output={tmp_path}", "--num_train=2", "--num_val=2", "--num_test=2"])
    assert f"test: {tmp_path / 'test.json'}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="num_test is 0; expected at least 1"):
        PairPictures(output=str(tmp_path), num_test=0)

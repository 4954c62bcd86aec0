"""`theworld evaluate`: what is checked before the first answer, and the answers of a model that sees no image."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from tests.evaluation.benchmarks import published
from tests.evaluation.test_evaluate import run
from theworld.evaluation.benchmarks.benchmark import prompt
from theworld.evaluation.benchmarks.opening import open_benchmark


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    path, images = published.write_srgpt(tmp_path_factory.mktemp("bench"), published.srgpt_rows(10))
    return {"benchmark": "srgpt", "path": str(path), "images": str(images)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "Quite."}, "the ground truth 'Quite.' does not parse"),
        ({"qa_info": {"type": "quantitative", "category": "weight_data"}}, "found category 'weight_data'"),
        (
            {"qa_info": {"type": "quantitative", "category": "left_predicate"}},
            "found type 'quantitative' with category",
        ),
    ],
)
def test_truth_category_and_type_are_checked_before_the_first_answer(export, tmp_path, monkeypatch, change, message):
    rows = published.srgpt_rows(4)
    if "answer" in change:
        rows[3]["conversations"][1]["value"] = change["answer"]
    else:
        rows[3] |= change
    path, images = published.write_srgpt(tmp_path, rows)
    bench = {"benchmark": "srgpt", "path": str(path), "images": str(images)}
    with monkeypatch.context() as patch:
        patch.setattr("theworld.evaluation.evaluate.answer", None)  # to answer anything would be an error
        with pytest.raises(ValueError, match=f"1 of 4 questions cannot be asked; the first: .*row 3, id .*{message}"):
            run(export, bench, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    answered = run(export, bench, tmp_path / "out", skip_malformed=True)
    assert [row["id"] for row in answered] == [row["id"] for row in rows[:3]]
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["notes"]["excluded"][0]["row"] == 3


def test_lines_about_other_or_more_questions_do_not_go_on(export, bench, tmp_path):
    rows = run(export, bench, tmp_path, limit=3)
    with pytest.raises(
        ValueError, match="holds answers to 1 questions that are not asked now, 'q.*expected answers to"
    ):
        run(export, bench, tmp_path, limit=2)
    rows[1]["ground_truth"] = "No way."
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="has ground_truth 'No way.', expected .* as the benchmark says"):
        run(export, bench, tmp_path, limit=3)


def test_a_control_says_which_tower_sees_nothing(export, bench, tmp_path):
    control = tmp_path / "control"
    shutil.copytree(export, control)
    config = json.loads((control / "processor_config.json").read_text())
    (control / "processor_config.json").write_text(json.dumps(config | {"blank_image": "vision"}))
    with pytest.raises(ValueError, match="was trained with blank_image='vision'"):
        run(str(control), bench, tmp_path / "out", limit=1)
    with pytest.warns(UserWarning, match="blank_image='vision'"):
        assert len(run(str(control), bench, tmp_path / "out", limit=1, blank_image="vision")) == 1


@pytest.mark.parametrize("region_style", ["box", "mask"])
def test_a_blind_model_sees_the_same_picture_in_every_question(bench, loaded, region_style):
    opened = open_benchmark("srgpt", bench["path"], images=bench["images"])
    seen = [prompt(opened, item, loaded.processor, region_style=region_style) for item in opened.items]
    blind = replace(opened, is_blind=True)
    unseen = [prompt(blind, item, loaded.processor, region_style=region_style) for item in blind.items]
    for name in ("pixel_values", "world_pixel_values"):
        assert all(torch.equal(getattr(one, name), getattr(unseen[0], name)) for one in unseen)
        assert len(torch.unique(getattr(unseen[0], name))) == 1  # plain grey, no region drawn
        assert not any(torch.equal(getattr(a, name), getattr(b, name)) for a, b in zip(seen, unseen, strict=True))
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(seen, unseen, strict=True))

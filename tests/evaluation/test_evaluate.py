"""`theworld evaluate` over the tiny base and small files: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import fcntl
import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.evaluation.benchmarks import published
from theworld.cli import main
from theworld.evaluation.evaluate import evaluate
from theworld.evaluation.report import Report


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    path, images = published.write_srgpt(tmp_path_factory.mktemp("bench"), published.srgpt_rows(10))
    return {"benchmark": "srgpt", "path": str(path), "images": str(images)}


def run(export, bench, output: Path, **settings):
    evaluate(**{"model": export, "output": str(output), "batch_size": 4, "max_new_tokens": 6} | bench | settings)
    return [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(export, bench, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    return output, run(export, bench, output)


def test_what_is_written(whole, bench, export):
    output, rows = whole
    source = published.srgpt_rows(10)
    assert [row["id"] for row in rows] == [row["id"] for row in source]
    assert [row["question"] for row in rows] == [row["text_q"] for row in source]
    assert [row["ground_truth"] for row in rows] == [row["conversations"][1]["value"] for row in source]
    assert rows[3]["regions"] == [[4.0, 6.0, 30.0, 40.0]]
    assert {row["num_tokens"] <= 6 for row in rows} == {True}
    settings = json.loads((output / "settings.json").read_text())
    assert settings["decisive"]["enable_world"] is True
    assert settings["decisive"]["decoding"] == {"method": "greedy", "max_new_tokens": 6}
    assert len(settings["decisive"]["model_sha256"]["weights"]) == 64
    assert settings["notes"]["model"] == export
    summary = json.loads((output / "summary.json").read_text())
    assert summary["settings_sha256"] == settings["settings_sha256"]
    assert summary["report"]["n"] == 10
    assert Image.open(output / "look.png").width > 600


def test_a_run_that_was_cut_off_goes_on_and_ends_with_the_same_bytes(whole, export, bench, tmp_path):
    output, _ = whole
    expected = (output / "predictions.jsonl").read_bytes()
    run(export, bench, tmp_path, limit=3)
    with (tmp_path / "predictions.jsonl").open("ab") as file:
        file.write(expected.splitlines(keepends=True)[3][:-20])  # what a kill leaves of the line being written
    run(export, bench, tmp_path)
    assert (tmp_path / "predictions.jsonl").read_bytes() == expected
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads((output / "summary.json").read_text())


def test_what_is_answered_is_not_answered_again(whole, export, bench, tmp_path):
    _, rows = whole
    run(export, bench, tmp_path, limit=4)
    path = tmp_path / "predictions.jsonl"
    marked = [row | {"prediction": "as it was"} for row in rows[:4]]
    path.write_text("".join(json.dumps(row) + "\n" for row in marked))
    again = run(export, bench, tmp_path)
    assert [row["prediction"] for row in again] == ["as it was"] * 4 + [row["prediction"] for row in rows[4:]]


def test_another_number_of_world_tokens(whole, export, bench, tmp_path, caplog):
    output, rows = whole
    fewer = run(export, bench, tmp_path, world_tokens_per_frame=1)
    settings, before = (json.loads((folder / "settings.json").read_text()) for folder in (tmp_path, output))
    assert settings["decisive"]["num_world_tokens"] == 1
    assert settings["notes"]["world_tokens_per_frame_trained_with"] == [before["decisive"]["num_world_tokens"]]
    assert "is read with 1 world tokens a frame" in caplog.text
    assert [row["id"] for row in fewer] == [row["id"] for row in rows]
    assert [row["prediction"] for row in fewer] != [row["prediction"] for row in rows]
    with pytest.raises(ValueError, match=r"found world_tokens_per_frame=1 for .* without a world branch"):
        run(export, bench, tmp_path / "other", world_tokens_per_frame=1, enable_world=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 7}, "decoding: .*'max_new_tokens': 6.* there, .*'max_new_tokens': 7.* now"),
        ({"enable_world": False}, "enable_world: True there, False now"),
        ({"region_style": "mask"}, "region_style: 'box' there, 'mask' now"),
        ({"model": "theworld-tiny"}, "model_sha256: "),
        ({"dtype": "bfloat16"}, "batch_size: None there, 4 now; dtype: 'float32' there"),
    ],
)
def test_other_settings_do_not_go_on(whole, export, bench, change, message):
    output, _ = whole
    before = (output / "predictions.jsonl").read_bytes()
    with pytest.raises(ValueError, match=f"were made with other settings .*{message}"):
        run(export, bench, output, **change)
    assert (output / "predictions.jsonl").read_bytes() == before


def test_a_changed_benchmark_does_not_go_on(whole, export, bench, tmp_path):
    output, _ = whole
    rows = published.srgpt_rows(10)
    rows[0]["text_q"] = "changed"
    path, images = published.write_srgpt(tmp_path, rows)
    with pytest.raises(ValueError, match="other settings .*sources: "):
        run(export, {"benchmark": "srgpt", "path": str(path), "images": str(images)}, output)


def test_a_changed_image_does_not_go_on(whole, export, tmp_path):
    """Rows and settings are the same, and the picture that two of four answers are about is another one."""
    rows = published.srgpt_rows(10)
    rows[2]["image_info"] = rows[1]["image_info"]
    path, images = published.write_srgpt(tmp_path, rows)
    bench, output = {"benchmark": "srgpt", "path": str(path), "images": str(images)}, tmp_path / "out"
    first = run(export, bench, output, limit=4)
    picture, other = (images / rows[number]["image_info"]["file_path"] for number in (1, 9))
    as_it_was, written = picture.read_bytes(), (output / "predictions.jsonl").read_bytes()
    assert [row["image_sha256"] for row in first[1:3]] == [hashlib.sha256(as_it_was).hexdigest()] * 2
    picture.write_bytes(published.photo(99))
    with pytest.raises(ValueError, match=rf"2 of 4 answers .* images, of {first[1]['id']!r}.*; restore them, or give"):
        run(export, bench, output)
    assert (output / "predictions.jsonl").read_bytes() == written
    picture.write_bytes(as_it_was)
    other.write_bytes(published.photo(99))  # of a question that is still to be answered
    last = run(export, bench, output)[-1]
    assert last["image_sha256"] == hashlib.sha256(published.photo(99)).hexdigest() != whole[1][-1]["image_sha256"]


def test_answers_that_do_not_say_what_they_saw_do_not_go_on(export, bench, tmp_path):
    rows = run(export, bench, tmp_path, limit=2)
    del rows[1]["image_sha256"]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="1 of 2 answers keep no image_sha256, as earlier versions wrote them"):
        run(export, bench, tmp_path)


def test_the_batch_size_changes_no_answer(whole, export, bench, tmp_path):
    output, _ = whole
    run(export, bench, tmp_path, batch_size=1)
    assert (tmp_path / "predictions.jsonl").read_bytes() == (output / "predictions.jsonl").read_bytes()


def test_files_that_are_no_predictions_are_refused(export, bench, tmp_path):
    rows = run(export, bench, tmp_path, limit=2)
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(rows[0]) + "\n" + "{}\n")
    with pytest.raises(ValueError, match=r"predictions\.jsonl, line 2: not a prediction"):
        run(export, bench, tmp_path)
    path.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[0]) + "\n")
    with pytest.raises(ValueError, match=r"line 2: id '.*' occurs twice"):
        run(export, bench, tmp_path)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"found predictions without settings\.json"):
        run(export, bench, tmp_path)


def test_one_process_at_a_time_writes(export, bench, tmp_path):
    run(export, bench, tmp_path, limit=1)
    with (tmp_path / "predictions.jsonl").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process writes it"):
            run(export, bench, tmp_path)


def test_faulty_questions_are_named_or_left_out_and_listed(export, tmp_path):
    rows = published.srgpt_rows(5)
    rows[1]["bbox"] = [[900, 900, 950, 950], [4, 6, 30, 40]]
    rows[3]["qa_info"] = None
    path, images = published.write_srgpt(tmp_path, rows)
    bench = {"benchmark": "srgpt", "path": str(path), "images": str(images)}
    with pytest.raises(ValueError, match=r"row 3, id 'quantitative_0003abcd': .*qa_info"):
        run(export, bench, tmp_path / "out")
    answered = run(export, bench, tmp_path / "out", skip_malformed=True)
    assert [row["id"] for row in answered] == [rows[number]["id"] for number in (0, 2, 4)]
    excluded = json.loads((tmp_path / "out" / "settings.json").read_text())["notes"]["excluded"]
    assert [fault["row"] for fault in excluded] == [3, 1]
    assert "covers less than a pixel" in excluded[1]["reason"]


def test_a_base_has_no_world_branch_to_evaluate(bench, tmp_path):
    with pytest.raises(ValueError, match="its world projector would be random"):
        run("theworld-tiny", bench, tmp_path, enable_world=True)


@pytest.mark.parametrize("name", ["vsr", "blink", "cvbench", "osd"])
def test_every_benchmark_from_the_command_line(export, tmp_path, name, capsys):
    settings = {}
    if name == "vsr":
        path, settings["images"] = published.write_vsr(tmp_path, published.vsr_rows())
    elif name == "blink":
        path = published.write_blink(tmp_path, "Relative_Depth", published.blink_rows("Relative_Depth"))
        settings["subtasks"] = "[Relative_Depth]"
    elif name == "cvbench":
        path = published.write_cv_bench(tmp_path)
    else:
        rows = [{**row, "filename": row["image_info"]["file_path"]} for row in published.srgpt_rows(5)]
        path, settings["images"] = published.write_srgpt(tmp_path, rows)
    words = [f"--{key}={value}" for key, value in settings.items()]
    output = tmp_path / "out"
    main(
        ["evaluate", f"--model={export}", f"--benchmark={name}", f"--path={path}", f"--output={output}"]
        + ["--max_new_tokens=4", *words]
    )
    assert "95 % interval" in capsys.readouterr().out
    summary = json.loads((output / "summary.json").read_text())
    lines = (output / "predictions.jsonl").read_text().splitlines()
    assert summary["report"]["n"] == len(lines) > 3
    if name == "cvbench":
        assert summary["report"]["official"]["name"].startswith("CV-Bench accuracy")
    blind_summary = blind_beside(
        tmp_path, [f"--model={export}", f"--benchmark={name}", f"--path={path}", "--max_new_tokens=4", *words]
    )
    assert blind_summary["blind_test"]["method"].endswith("model against blind, all questions")
    main(["score", str(output / "predictions.jsonl"), f"--output={tmp_path / 'again'}"])
    again = tmp_path / "again" / "summary.json"
    if name == "osd":
        assert json.loads(again.read_text()) == summary["report"]
    else:
        assert again.read_bytes() == (output / "summary.json").read_bytes()
    scores = [json.loads(line) for line in (tmp_path / "again" / "scores.jsonl").read_text().splitlines()]
    assert [row["id"] for row in scores] == [json.loads(line)["id"] for line in lines]


def blind_beside(folder: Path, words: list[str]) -> dict[str, object]:
    """The summary of the answers in `folder / "out"` beside those to the same questions without images."""
    main(["evaluate", *words, f"--output={folder / 'blind'}", "--blind=true"])
    files = [folder / name / "predictions.jsonl" for name in ("out", "blind")]
    rows = [json.loads(line) for line in files[1].read_text().splitlines()]
    assert [row["id"] for row in rows] == [json.loads(line)["id"] for line in files[0].read_text().splitlines()]
    assert {row["blind"] for row in rows} == {True}
    scored = ["score", str(files[0]), f"--blind={files[1]}", f"--output={folder / 'scored'}", "--allow_identical=true"]
    main(scored)  # the untrained model of these tests may say the same to every picture
    summary = json.loads((folder / "scored" / "summary.json").read_text())
    return summary.get("report", summary)


def test_a_mistake_ends_the_command_with_its_message(tmp_path):
    with pytest.raises(SystemExit, match="theworld evaluate: .*no such file or folder, and no name of a data set"):
        main(["evaluate", "--model=theworld-tiny", "--benchmark=cvbench", "--path=./gone", f"--output={tmp_path}"])


def test_the_report_can_be_made_again_from_the_file(whole):
    """From what stands in the lines alone, by the scorer's own types."""
    from theworld.evaluation.report import Prediction
    from theworld.types import Question

    output, rows = whole
    keys = ("id", "question", "qa_type", "qa_category")
    predictions = [
        Prediction(
            Question(**{key: row[key] for key in keys}, answer=row["ground_truth"], image_id=Path(row["image"]).stem),
            row["prediction"],
        )
        for row in rows
    ]
    summary = json.loads((output / "summary.json").read_text())["report"]
    assert Report.from_predictions(predictions).summary()["rows"] == summary["rows"]

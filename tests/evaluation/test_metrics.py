"""The metric against the report, and two real processes with uneven shards against one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.training.ranks import Ranks
from theworld.evaluation.metrics import SpatialAccuracy
from theworld.evaluation.predictions import Prediction
from theworld.evaluation.report import Report
from theworld.types import Question

KINDS = {
    "tall_predicate": ("Is Region [0] taller than Region [1]?", ["Yes.", "No."], ["Yes.", "No.", "Unclear.", ""]),
    "left_choice": (
        "Which is more to the left, Region [0] or Region [1]?",
        ["Region [0].", "Region [1]."],
        ["Region [0]"],
    ),
    "width_data": ("How wide is Region [0]?", ["2 m", "7 feet"], ["1.9 m", "3 m", "90 cm", "40 pixels"]),
    "distance_data": ("How far is Region [0] from Region [1]?", ["3.3 m"], ["3 m", "0.1 m", "11 inches"]),
    "direction": ("Where is Region [1]?", ["3 o'clock"], ["2 o'clock", "7:20", "right"]),
}


def answered(count: int) -> list[Prediction]:
    draw = random.Random(0)
    found = []
    for number in range(count):
        category = draw.choice(list(KINDS))
        wording, truths, texts = KINDS[category]
        question = Question(
            id=str(number),
            image_id=str(number),
            question=wording,
            answer=draw.choice(truths),
            qa_type="quantitative" if category.endswith(("data", "direction")) else "qualitative",
            qa_category=category,
        )
        found.append(Prediction(question, draw.choice(texts)))
    return found


def update(metric: SpatialAccuracy, predictions: list[Prediction]) -> None:
    metric.update([p.question for p in predictions], [p.text for p in predictions])


def test_the_metric_says_what_the_report_says() -> None:
    predictions, metric = answered(60), SpatialAccuracy()
    for start in range(0, 60, 7):
        update(metric, predictions[start : start + 7])
    found, report = (
        {name: value.item() for name, value in metric.compute().items()},
        Report.from_predictions(predictions),
    )
    overall = report.row("overall")
    assert found == pytest.approx(
        {
            "accuracy": overall.accuracy,
            "accuracy/qualitative": report.row("qualitative").accuracy,
            "accuracy/quantitative": report.row("quantitative").accuracy,
            "accuracy/left-right": report.row("left/right").accuracy,
            "accuracy/tall-short": report.row("tall/short").accuracy,
            "accuracy/direct_distance": report.row("direct distance").accuracy,
            "accuracy/width": report.row("width").accuracy,
            "accuracy/direction": report.row("direction").accuracy,
            "unread": overall.unread / overall.n,
            "relative_error": overall.relative_error,
            "degrees": overall.degrees,
        },
        abs=1e-8,
    )


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_what_had_no_question_is_left_out() -> None:
    assert SpatialAccuracy().compute() == {}
    metric = SpatialAccuracy()
    update(metric, [p for p in answered(60) if p.question.qa_category == "direction"][:1])
    assert set(metric.compute()) <= {"accuracy", "accuracy/quantitative", "accuracy/direction", "unread", "degrees"}


def test_a_huge_error_does_not_overflow() -> None:
    question = answered(60)[0].question
    length = Question(**{**vars(question), "qa_category": "width_data", "qa_type": "quantitative", "answer": "1 mm"})
    metric = SpatialAccuracy()
    metric.update([length] * 3, ["999999999999 km", "1 mm", "2 mm"])
    assert metric.compute()["relative_error"].item() == pytest.approx((2**16 + 0 + 1) / 3)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="found 1 questions and 2 answers; expected one answer a question"):
        SpatialAccuracy().update([answered(1)[0].question], ["yes", "no"])


SHARDS = {
    "40 and 20, interleaved": [[n for n in range(60) if n % 3], [n for n in range(60) if n % 3 == 0]],
    "41 and 19": [list(range(41)), list(range(41, 60))],
    "all on one": [[], list(range(60))],
}


def _of_rank(*, world_size: int, folder: Path) -> None:
    dist.init_process_group("gloo")
    rank, predictions, found = dist.get_rank(), answered(60), {}
    for name, shards in SHARDS.items():
        metric = SpatialAccuracy()
        for start in range(0, len(shards[rank]), 4):
            update(metric, [predictions[number] for number in shards[rank][start : start + 4]])
        found[name] = metric.compute()
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_with_uneven_shards_equal_one_exactly(tmp_path: Path) -> None:
    Ranks(_of_rank, world_size=2, folder=tmp_path).wait(60)
    metric = SpatialAccuracy()
    update(metric, answered(60))
    alone = metric.compute()
    assert len(alone) > 9
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in SHARDS:
            assert found[name].keys() == alone.keys()
            assert all(torch.equal(found[name][key], alone[key]) for key in alone), (rank, name)

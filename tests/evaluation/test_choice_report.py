"""The table of multiple-choice and true/false benchmarks: intervals, constants, and the authors' own numbers."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from theworld.evaluation.choice_report import ChoiceAnswer, ChoiceReport
from theworld.evaluation.choice_rows import CV_BENCH_WEIGHTS, weighted_mean
from theworld.evaluation.statistics import wilson_interval


def answers(group: str, *, right: int, wrong: int, unparsed: int = 0, truth: str = "(A)", category: str = ""):
    texts = [truth] * right + ["(B)" if truth == "(A)" else "(A)"] * wrong + ["A or B"] * unparsed
    return [
        ChoiceAnswer(
            id=f"{group}-{category}-{truth}-{number}",
            category=category or group,
            group=group,
            question="Which?",
            choices=("one", "two"),
            truth=truth,
            text=text,
            image=f"{group}-{category}-{truth}-{number}",
        )
        for number, text in enumerate(texts)
    ]


def test_cv_benchs_number_is_the_weighted_one():
    """½((80 % + 50 %)/2 + 25 %) = 45 %, and not the share of all right answers."""
    given = answers("ADE20K", right=8, wrong=2, category="Count")
    given += answers("COCO", right=2, wrong=2, category="Relation")
    given += answers("Omni3D", right=4, wrong=8, unparsed=4, category="Depth")
    report = ChoiceReport.from_answers("cvbench", given, scoring="letter")
    assert report.official.value == pytest.approx(0.45)
    assert report.overall.accuracy == pytest.approx(14 / 30)
    assert report.overall.unparsed == 4
    assert {row.name: row.n for row in report.groups} == {"ADE20K": 10, "COCO": 4, "Omni3D": 16}
    assert report.official.best_constant == pytest.approx(1.0)
    rows = {row.name: row.interval for row in report.groups}
    assert all(
        rows[name].low <= wilson_interval(right, n).low for name, right, n in (("ADE20K", 8, 10), ("Omni3D", 4, 16))
    )
    parts = [rows[name] for name in ("ADE20K", "COCO", "Omni3D")]
    weighted = zip((0.25, 0.25, 0.5), (0.8, 0.5, 0.25), parts, strict=True)
    spread = [weight * (share - part.low) for weight, share, part in weighted]
    assert report.official.interval.low == pytest.approx(0.45 - sum(s * s for s in spread) ** 0.5)
    assert ChoiceReport.from_answers("cvbench", given[:14], scoring="letter").official is None


@pytest.mark.slow
def test_the_interval_of_a_weighted_mean_covers_the_truth():
    """In 400 draws the 95 % interval of CV-Bench's number holds the true one about as often as it says."""
    random.seed(0)
    shares, sizes = {"ADE20K": 0.8, "COCO": 0.6, "Omni3D": 0.5}, {"ADE20K": 60, "COCO": 80, "Omni3D": 120}
    truth = sum(CV_BENCH_WEIGHTS[name] * share for name, share in shares.items())
    held = 0
    for _ in range(400):
        given = []
        for name, share in shares.items():
            right = sum(random.random() < share for _ in range(sizes[name]))
            given += answers(name, right=right, wrong=sizes[name] - right)
        interval = ChoiceReport.from_answers("cvbench", given, scoring="letter").official.interval
        held += interval.low <= truth <= interval.high
    assert 0.92 <= held / 400 <= 0.98


def test_blinks_number_is_the_mean_over_its_subtasks():
    given = answers("Relative_Depth", right=9, wrong=1) + answers("Spatial_Relation", right=1, wrong=1)
    report = ChoiceReport.from_answers("blink", given, scoring="letter")
    assert report.official.value == pytest.approx(0.7)
    assert report.groups == ()  # they are the categories


def test_the_best_constant_of_choices_is_one_a_category():
    given = answers("x", right=3, wrong=0, truth="(A)", category="one")
    given += answers("x", right=1, wrong=0, truth="(B)", category="one")
    given += answers("x", right=2, wrong=0, truth="(B)", category="two")
    report = ChoiceReport.from_answers("blink", given, scoring="letter")
    assert [row.best_constant for row in report.categories] == [0.75, 1.0]
    assert report.overall.best_constant == pytest.approx(5 / 6)
    assert report.categories[0].shares == {"A": 0.75, "B": 0.25}
    assert report.overall.chance == 0.5


def truths(labels: str, texts: str, image: str = ""):
    words = {"y": "Yes.", "n": "No.", "?": "Maybe."}
    return [
        ChoiceAnswer(
            id=str(number),
            category=f"relation_{number}",
            group=f"relation_{number}",
            question="Is the following statement true? The cat is on the mat.",
            choices=("Yes.", "No."),
            truth=words[label],
            text=words[text],
            image=image or str(number),
        )
        for number, (label, text) in enumerate(zip(labels, texts, strict=True))
    ]


def test_the_best_constant_of_true_or_false_is_one_for_all():
    """One a relation would be right on everything, where every relation is asked once."""
    report = ChoiceReport.from_answers("vsr", truths("yyynn", "yn?nn"), scoring="truth")
    assert (report.overall.accuracy, report.overall.best_constant, report.overall.unparsed) == (0.6, 0.6, 1)
    assert report.overall.shares == {"no": 0.4, "yes": 0.6}
    assert (report.paired_test.only_first, report.paired_test.only_second) == (2, 2)
    assert report.official.value == 0.6


def test_a_model_that_always_says_yes_is_no_better_than_the_constant():
    report = ChoiceReport.from_answers("vsr", truths("yyynn" * 20, "yyyyy" * 20), scoring="truth")
    assert report.overall.accuracy == report.overall.best_constant == 0.6
    assert report.paired_test.p_value == 1.0


def test_the_order_of_answers_does_not_matter():
    given = answers("COCO", right=3, wrong=2) + answers("ADE20K", right=1, wrong=4)
    shuffled = random.Random(1).sample(given, len(given))
    first, second = (ChoiceReport.from_answers("cvbench", g, scoring="letter") for g in (given, shuffled))
    assert first.summary() == second.summary()


def test_what_cannot_be_reported_is_refused():
    with pytest.raises(ValueError, match="found no answers"):
        ChoiceReport.from_answers("vsr", [], scoring="truth")
    twice = answers("COCO", right=1, wrong=0) * 2
    with pytest.raises(ValueError, match=r"found ids \['COCO--\(A\)-0'\] twice"):
        ChoiceReport.from_answers("cvbench", twice, scoring="letter")


def test_the_mean_of_one_row_is_that_row():
    row = ChoiceReport.from_answers("vsr", truths("yyynn", "yn?nn"), scoring="truth").overall
    mean, interval = weighted_mean([row], [1.0])
    assert mean == row.accuracy
    assert (interval.low, interval.high) == pytest.approx((row.interval.low, row.interval.high))


def test_answers_about_one_image_are_not_independent():
    """Forty captions, four of each of ten photos, all right or all wrong, so that intervals and tests are of ten."""
    texts = "".join(text * 4 for text in "yyyyyyyynn")
    one_each = ChoiceReport.from_answers("vsr", truths("y" * 40, texts), scoring="truth")
    by_photo = [replace(answer, image=str(int(answer.id) // 4)) for answer in truths("y" * 40, texts)]
    shared = ChoiceReport.from_answers("vsr", by_photo, scoring="truth")
    assert shared.overall.interval.low < one_each.overall.interval.low - 0.05
    assert shared.paired_test.mcnemar_p_value == one_each.paired_test.mcnemar_p_value == 2 / 2**8
    assert one_each.paired_test.p_value == pytest.approx(2 / 2**8)
    assert shared.paired_test.p_value == pytest.approx(2 / 2**2)


def test_blind_answers_are_a_baseline_of_the_same_questions():
    given = truths("yyynn", "yn?nn")
    blind = truths("yyynn", "yyyyy")
    report = ChoiceReport.from_answers("vsr", given, scoring="truth", blind=blind[::-1])
    assert (report.overall.accuracy, report.overall.blind) == (0.6, 0.6)
    assert report.summary()["blind_test"]["only_blind_right"] == 2
    assert report.summary()["overall"]["blind"] == 0.6
    assert "blind 60.0; alone right on 2 and 2: p = 1 by images" in report.table().caption
    with pytest.raises(ValueError, match="question '4': found no blind answer"):
        ChoiceReport.from_answers("vsr", given, scoring="truth", blind=blind[:-1])
    with pytest.raises(ValueError, match="question '4': found a blind answer to another question or ground truth"):
        ChoiceReport.from_answers("vsr", given, scoring="truth", blind=[*blind[:-1], replace(blind[4], truth="Yes.")])

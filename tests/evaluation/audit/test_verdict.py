"""The verdict: content decides, presence is only mentioned, and what a set cannot show is not said."""

from __future__ import annotations

import pytest

from theworld.evaluation.audit.arms import ARMS, REAL
from theworld.evaluation.audit.comparison import Answers, compare
from theworld.evaluation.audit.verdict import MOST_CHANGED, Verdict, judge, least_images

N = 400
FLIP = {"Yes.": "No.", "No.": "Yes."}


@pytest.fixture
def questions(ask):
    wording = "Is Region [0] bigger than Region [1]?"
    return [ask("big_predicate", wording, ("Yes.", "No.")[n % 2], id=str(n), image=str(n)) for n in range(N)]


def judged(
    questions, *, level: float = 0.001, margin: float = 0.05, real: tuple[int, int] = (0, 0), **wrong
) -> Verdict:
    """Of answers that are right but for those whose numbers are in a range, an arm each."""

    def answered(arm: str) -> Answers:
        numbers = range(*(real if arm == REAL else wrong.get(arm, real)))
        texts = tuple(FLIP[q.answer] if n in numbers else q.answer for n, q in enumerate(questions))
        return Answers(texts=texts, changes=(arm != REAL,) * len(texts), logit_differences=(1.0,) * len(texts))

    results = compare(questions, {arm: answered(arm) for arm in ARMS}, logit_tolerance=0.0)
    return judge(results, level=level, margin=margin)


def test_content_decides(questions):
    found = judged(questions, shuffled=(0, 60))
    assert (found.world, found.image) == ("relies", "no reliance shown")
    assert found.sentences[0].startswith("Relies on world: with world tokens of another image 85.0 % are right instead")
    assert "60 of 400 answers change." in found.sentences[0]
    found = judged(questions, image_removed=(0, 60))
    assert (found.world, found.image) == ("no reliance shown", "relies")


def test_missing_tokens_alone_are_no_reliance(questions):
    found = judged(questions, zeroed=(0, 60))
    assert found.world == "no reliance shown"
    assert (
        "Without its world tokens it does worse (zeroed). That is no reliance on what they show" in found.sentences[-1]
    )


def test_no_reliance_is_within_a_margin_and_says_so(questions):
    found = judged(questions, real=(0, 40), shuffled=(4, 44))
    assert found.world == "no reliance shown"
    assert found.sentences[0].startswith("No reliance on world shown, within ±5 points: with world tokens of another")
    assert "8 of 400 answers change." in found.sentences[0]
    assert judged(questions, real=(0, 40), shuffled=(4, 44), margin=0.01).world == "not decided"


def test_no_answer_that_changes_says_how_sure_the_images_make_it(questions):
    found = judged(questions)
    assert (
        "none of 400 answers changes (so with 95 % confidence those to at most 0.7 % of images do, 400 being seen)"
        in (found.sentences[0])
    )


def test_answers_that_change_and_are_right_as_often_are_no_independence(questions):
    """Half of the answers hang on the world tokens, and half are right either way."""
    found = judged(questions, real=(0, 100), shuffled=(100, 200))
    assert found.world == "not decided"
    assert "200 of 400 answers change. " in found.sentences[0]
    changed = (
        f"More than {100 * MOST_CHANGED:g} % of the answers change, so what was exchanged is read. That it helps is"
    )
    assert f"{changed} not shown; a larger set may, if accuracy does not stay within ±5 points." in found.sentences[0]
    wide = judged(questions, real=(0, 100), shuffled=(100, 200), margin=0.1)
    assert wide.world == "not decided"
    assert f"{changed} not shown; accuracy stays within ±10 points, so that no larger set will." in wide.sentences[0]


@pytest.mark.parametrize("n", [2, 7, 58])
def test_a_small_set_is_never_a_verdict_of_no_reliance(questions, n):
    same = judged(questions[:n])
    assert (same.world, same.image) == ("not decided", "not decided")
    assert f"{n} images are too few: fewer than 59 cannot" in same.sentences[0]
    worse = judged(questions[:n], shuffled=(0, 2))  # two questions, 100 % → 0 %
    assert worse.world == "not decided"


def test_many_questions_about_few_images_are_a_small_set(ask):
    wording = "Is Region [0] bigger than Region [1]?"
    questions = [ask("big_predicate", wording, "Yes.", id=str(n), image=str(n % 10)) for n in range(N)]
    found = judged(questions)
    assert found.world == "not decided"
    assert (
        "none of 400 answers changes (so with 95 % confidence those to at most 25.9 % of images" in found.sentences[0]
    )


def test_an_interval_beyond_the_margin_is_open_and_says_what_would_decide(questions):
    found = judged(questions[:100], real=(0, 5), shuffled=(3, 9))
    assert found.world == "not decided"
    assert "The interval reaches beyond ±5 points and p is not below 0.001; if there is no diff" in found.sentences[0]
    assert "about 620 images would show it" in found.sentences[0]


def test_a_drop_that_is_not_significant_says_what_would_be(questions):
    """Eight of 80 fall, none rises: p by images 0.0078, times seven arms; 18 would do at this level."""
    found = judged(questions[:80], shuffled=(0, 8))
    assert found.world == "not decided"
    assert "It does worse, but p is not below 0.001" in found.sentences[0]
    assert "if it is no chance, about 250 images would show it." in found.sentences[0]
    assert judged(questions[:250], shuffled=(0, 25)).world == "relies"  # at the same rate


def test_an_arm_that_is_better_is_no_reliance(questions):
    found = judged(questions, real=(0, 60), shuffled=(0, 0))
    assert found.world == "not decided"
    assert "It does better without what was taken away" in found.sentences[0]


def test_the_least_set():
    assert least_images(0.05) == 59
    assert 0.95**59 < 0.05 < 0.95**58

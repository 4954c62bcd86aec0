"""What each arm did to the answers, against the real arm on the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from theworld.evaluation.answers import score_answer
from theworld.evaluation.audit.arms import REAL
from theworld.evaluation.paired_test import difference_interval, paired_test
from theworld.evaluation.statistics import Interval, wilson_interval
from theworld.types import Question


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one arm answered.

    Attributes:
        texts: One a question.
        changes: Whether the arm gave the model other inputs than the real arm, one a question.
        logit_differences: Largest difference to the real arm over the logits of the first new token, one a question.
    """

    texts: tuple[str, ...]
    changes: tuple[bool, ...]
    logit_differences: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm against the real one, on the same questions.

    Attributes:
        arm: Its name.
        n: Questions.
        images: Images they are about.
        correct: Right answers.
        unparsed: Answers that could not be read; they count as wrong.
        interval: Wilson's 95 % interval of the accuracy.
        only_real: Questions that only the real arm got right.
        only_arm: Questions that only this arm got right.
        p_value: Two-sided, by images (`theworld.evaluation.paired_test`); 1 for the real arm.
        p_holm: The same after Holm's correction over all arms that changed an input.
        mcnemar_p_value: Exact McNemar, which takes the questions for independent; nothing follows from it.
        difference: Accuracy of this arm minus that of the real arm.
        difference_interval: 95 % interval of it: the union of Tango's and a bootstrap over images.
        inputs_changed: Questions for which this arm gave the model other inputs.
        images_changed: Images with such a question.
        logits_changed: Questions whose first logits differ from the real arm's by more than replaying them does.
        largest_logit_difference: Over all of them.
        answers_changed: Questions with another text than in the real arm.
    """

    arm: str
    n: int
    images: int
    correct: int
    unparsed: int
    interval: Interval
    only_real: int
    only_arm: int
    p_value: float
    p_holm: float
    mcnemar_p_value: float
    difference: float
    difference_interval: Interval
    inputs_changed: int
    images_changed: int
    logits_changed: int
    largest_logit_difference: float
    answers_changed: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct / self.n

    @property
    def is_disconnected(self) -> bool:
        """Other inputs, and yet the same logits everywhere."""
        return self.inputs_changed > 0 and self.logits_changed == 0


def compare(
    questions: Sequence[Question], answers: Mapping[str, Answers], *, logit_tolerance: float
) -> tuple[ArmResult, ...]:
    """Results in the order of `answers`, which holds `real`.

    Args:
        questions: In the order of the answers.
        answers: By arm.
        logit_tolerance: Difference of logits that replaying the real arm makes; 0 where it is bit-identical.
    """
    real = [score_answer(q, text).correct for q, text in zip(questions, answers[REAL].texts, strict=True)]
    results = [_result(arm, questions, found, answers[REAL], real, logit_tolerance) for arm, found in answers.items()]
    tested = {r.arm: r.p_value for r in results if r.arm != REAL and r.inputs_changed}
    corrected = holm(tested)
    return tuple(replace(r, p_holm=corrected.get(r.arm, 1.0)) for r in results)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): the i-th smallest of m, from 0, times m − i, never below the one before."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        corrected[name] = largest
    return corrected


def _result(
    arm: str,
    questions: Sequence[Question],
    found: Answers,
    real_answers: Answers,
    real: Sequence[bool],
    logit_tolerance: float,
) -> ArmResult:
    outcomes = [score_answer(question, text) for question, text in zip(questions, found.texts, strict=True)]
    right = [outcome.correct for outcome in outcomes]
    images = [question.image_id for question in questions]
    test = paired_test(real, right, images)
    return ArmResult(
        arm=arm,
        n=len(right),
        images=len(set(images)),
        correct=sum(right),
        unparsed=sum(not outcome.parsed for outcome in outcomes),
        interval=wilson_interval(sum(right), len(right)),
        only_real=test.only_first,
        only_arm=test.only_second,
        p_value=test.p_value,
        p_holm=1.0,
        mcnemar_p_value=test.mcnemar_p_value,
        difference=(test.only_second - test.only_first) / len(right),
        difference_interval=difference_interval(real, right, images),
        inputs_changed=sum(found.changes),
        images_changed=len({image for image, is_changed in zip(images, found.changes, strict=True) if is_changed}),
        logits_changed=sum(difference > logit_tolerance for difference in found.logit_differences),
        largest_logit_difference=max(found.logit_differences),
        answers_changed=sum(a != b for a, b in zip(found.texts, real_answers.texts, strict=True)),
    )

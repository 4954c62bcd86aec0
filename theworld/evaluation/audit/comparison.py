"""What each arm did to the answers, against the real arm on the same questions; and the verdict that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from theworld.evaluation.answers import score_answer
from theworld.evaluation.audit.arms import FUTURE, REAL, WORLD_ARMS
from theworld.evaluation.statistics import Interval, cluster_bootstrap, mcnemar_exact, wilson_interval
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
        correct: Right answers.
        unparsed: Answers that could not be read; they count as wrong.
        interval: Wilson's 95 % interval of the accuracy.
        only_real: Questions that only the real arm got right.
        only_arm: Questions that only this arm got right.
        p_value: Exact McNemar test, two-sided; 1 for the real arm.
        p_holm: The same after Holm's correction over all arms that changed an input.
        difference: Accuracy of this arm minus that of the real arm.
        difference_interval: 95 % interval of it, from a bootstrap over images.
        inputs_changed: Questions for which this arm gave the model other inputs.
        logits_changed: Questions whose first logits differ from the real arm's by more than replaying them does.
        largest_logit_difference: Over all of them.
        answers_changed: Questions with another text than in the real arm.
    """

    arm: str
    n: int
    correct: int
    unparsed: int
    interval: Interval
    only_real: int
    only_arm: int
    p_value: float
    p_holm: float
    difference: float
    difference_interval: Interval
    inputs_changed: int
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


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the arms say.

    Attributes:
        relies_on_world: `shuffled` is worse than `real`, p after Holm below the level.
        relies_on_image: `image_removed` is worse than `real`, likewise.
        relies_on_future: `future_is_present` is worse than `real`, likewise; None for a model without future frames.
        sentences: The verdicts in words, with their numbers.
    """

    relies_on_world: bool
    relies_on_image: bool
    relies_on_future: bool | None
    sentences: tuple[str, ...]


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


def judge(results: Sequence[ArmResult], *, level: float) -> Verdict:
    """The verdict.

    Whether a model relies on its world tokens is decided by `shuffled` alone, the only arm that keeps everything of
    them but what they say of this picture. Without any world tokens a model may fail because they are part of the
    prompt it was trained with; that is said, and is no reliance.

    Args:
        results: Of all arms.
        level: Of significance.
    """
    by_arm = {result.arm: result for result in results}
    world, image = (_is_worse(by_arm[arm], level) for arm in ("shuffled", "image_removed"))
    sentences = [
        _sentence("world", by_arm[REAL], by_arm["shuffled"], world, level),
        _sentence("image", by_arm[REAL], by_arm["image_removed"], image, level),
    ]
    suffering = [arm for arm in WORLD_ARMS if arm != "shuffled" and _is_worse(by_arm[arm], level)]
    if suffering and not world:
        sentences.append(
            f"Without its world tokens it does worse ({', '.join(suffering)}), but not with those of another image: "
            "they work as a part of the prompt, whatever they show."
        )
    future = _is_worse(by_arm[FUTURE], level) if FUTURE in by_arm else None
    if future is not None:
        sentences.append(_sentence("future", by_arm[REAL], by_arm[FUTURE], future, level))
    return Verdict(relies_on_world=world, relies_on_image=image, relies_on_future=future, sentences=tuple(sentences))


_SAME = "every sample has the same {} input, which can tell no picture from another."
_UNCHANGED = {name: _SAME.format(name) for name in ("world", "image")} | {
    "future": "it is the present in every sample."
}
_INSTEAD = {"world": "world tokens of another image", "image": "a blank image", "future": "copies of the present frame"}


def _is_worse(result: ArmResult, level: float) -> bool:
    return result.p_holm < level and result.only_real > result.only_arm


def _sentence(what: str, real: ArmResult, arm: ArmResult, relies: bool, level: float) -> str:
    start = f"{'Relies' if relies else 'Does not rely'} on {what}: "
    if not arm.inputs_changed:
        return f"{start}{_UNCHANGED[what]}"
    numbers = (
        f"with {_INSTEAD[what]} {100 * arm.accuracy:.1f} % are right instead of {100 * real.accuracy:.1f} % "
        f"(McNemar p after Holm {arm.p_holm:.2g}"
    )
    if arm.p_holm < level and not relies:
        numbers += ", so it does better without"
    if not arm.answers_changed:
        numbers += f"; no answer of {arm.n} differs, so at most {_at_most(arm.n):.1f} % do, with 95 % confidence"
    return f"{start}{numbers})."


def _at_most(n: int) -> float:
    """Upper 95 % bound in percent of a share of which none was seen in n: 1 − 0.05^(1/n)."""
    return 100 * (1 - 0.05 ** (1 / n))


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
    test = mcnemar_exact(real, right)
    differences = [float(b) - float(a) for a, b in zip(real, right, strict=True)]
    return ArmResult(
        arm=arm,
        n=len(right),
        correct=sum(right),
        unparsed=sum(not outcome.parsed for outcome in outcomes),
        interval=wilson_interval(sum(right), len(right)),
        only_real=test.only_first,
        only_arm=test.only_second,
        p_value=test.p_value,
        p_holm=1.0,
        difference=sum(differences) / len(differences),
        difference_interval=cluster_bootstrap(differences, [question.image_id for question in questions]),
        inputs_changed=sum(found.changes),
        logits_changed=sum(difference > logit_tolerance for difference in found.logit_differences),
        largest_logit_difference=max(found.logit_differences),
        answers_changed=sum(a != b for a, b in zip(found.texts, real_answers.texts, strict=True)),
    )

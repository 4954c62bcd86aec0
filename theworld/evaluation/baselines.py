"""What a model must beat: the best constant answer to every question template, and chance.

The best constant is an **oracle**: it is chosen on the evaluated set itself, by looking at its ground truths, which no
blind model can do. That makes it the hardest baseline that sees neither image nor question. The fewer questions share a
template the more it flatters itself (a template asked once is always answered right), so it says little about a small
or very varied set.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm

from theworld.evaluation.answers import (
    Value,
    is_correct,
    offered_regions,
    parse_truth,
    question_kind,
)
from theworld.evaluation.asked import Asked, asked, region_name
from theworld.evaluation.sentences import REGION, clean
from theworld.types import Question

_MENTIONED = ("first-mentioned", "second-mentioned")
"""The constant answers to a question that offers two regions."""


@dataclass(frozen=True)
class BestConstant:
    """The constant answer to one template that is right most often.

    Attributes:
        answer: `yes`/`no`, `first-mentioned`/`second-mentioned`, metres, or the clock hour.
        n: Questions of the template.
        correct: How many of them the constant answers right.
    """

    answer: str | float
    n: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of the template's questions that the constant answers right."""
        return self.correct / self.n


@dataclass(frozen=True)
class Constants:
    """The best constants of a set, and what they score on it.

    Attributes:
        by_template: The constant of every template.
        right: Whether the constant of its template answers each question right.
    """

    by_template: dict[str, BestConstant]
    right: tuple[bool, ...]


def best_constants(questions: Sequence[Question], truths: Sequence[Value] | None = None) -> Constants:
    """The best constant of every template, an oracle chosen on these very questions.

    Ties go to `yes`, to the first-mentioned region, to the earliest hour and to the shortest length. A length is the
    middle of the range of values that hit equally often.

    Args:
        questions: The questions.
        truths: Their ground truths in canonical form, where they have been read already.

    Raises:
        ValueError: A category is unknown or a ground truth cannot be read.
    """
    if truths is None:
        truths = [parse_truth(question) for question in questions]
    names = [template(question) for question in questions]
    wanted = list(map(asked, questions))
    groups: dict[str, list[tuple[Asked, Value]]] = defaultdict(list)
    for name, of, truth in zip(names, wanted, truths, strict=True):
        groups[name].append((of, truth))
    answers = {name: _best(group) for name, group in groups.items()}
    right = tuple(_hits(answers[name], of, truth) for name, of, truth in zip(names, wanted, truths, strict=True))
    hits: dict[str, int] = defaultdict(int)
    for name, hit in zip(names, right, strict=True):
        hits[name] += hit
    by_template = {
        name: BestConstant(float(answer) if isinstance(answer, Fraction) else answer, len(groups[name]), hits[name])
        for name, answer in answers.items()
    }
    return Constants(by_template, right)


def template(question: Question) -> str:
    """Category and wording of a question, with regions numbered by order of mention."""
    return f"{question.qa_category}: {_numbered_wording(question.question)}"


def chance(question: Question) -> float | None:
    """Expected accuracy of guessing: ½ of two answers, 3 of 12 hours, None for lengths, where it has no meaning."""
    kind = question_kind(question)
    if kind == "direction":
        return 3 / 12
    if kind == "choice":
        return 1 / max(1, len(offered_regions(question)))
    return 0.5 if kind == "yes_no" else None


@lru_cache(maxsize=1 << 14)
def _numbered_wording(question: str) -> str:
    order: dict[str, int] = {}
    wording = REGION.sub(lambda match: f"region [{order.setdefault(match[1], len(order))}]", clean(question))
    return " ".join(wording.split())


def _best(group: list[tuple[Asked, Value]]) -> Value:
    kind = group[0][0].kind
    if kind == "distance":
        return _best_length([truth for _, truth in group if isinstance(truth, Fraction)])
    candidates: list[Value]
    if kind == "direction":
        candidates = [Fraction(hour) for hour in range(1, 13)]
    elif kind == "yes_no":
        candidates = ["yes", "no"]
    else:
        candidates = list(_MENTIONED)
    alike = Counter(group)
    return max(candidates, key=lambda candidate: sum(n for (of, t), n in alike.items() if _hits(candidate, of, t)))


def _hits(constant: Value, of: Asked, truth: Value) -> bool:
    if isinstance(constant, str) and constant in _MENTIONED:
        position = _MENTIONED.index(constant)
        return position < len(of.regions) and is_correct(of, region_name(of.regions[position]), truth)
    return is_correct(of, constant, truth)


def _best_length(truths: list[Fraction]) -> Fraction:
    """A value inside most of the intervals [0.75 g, 1.25 g]: some interval's lower end always is one such value."""
    # In quarters of one unit that divides them all, so that whole numbers are compared: exact, and much faster.
    units = lcm(*(truth.denominator for truth in truths))
    wholes = sorted(truth.numerator * (units // truth.denominator) for truth in truths)
    lows, highs = [3 * whole for whole in wholes], [5 * whole for whole in wholes]
    low = max(lows, key=lambda value: bisect_right(lows, value) - bisect_left(highs, value))
    return Fraction(low + highs[bisect_left(highs, low)], 8 * units)

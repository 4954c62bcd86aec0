"""Answers to multiple-choice and true/false questions → a table and a summary, beside the best constant and chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from theworld.evaluation.choice_rows import ChoiceRow, Official, official_number
from theworld.evaluation.choices import CHOICE_SCORER_VERSION, ChoiceOutcome, score_letter, score_truth
from theworld.evaluation.statistics import PairedTest, mcnemar_exact, wilson_interval

Json = str | float | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, kw_only=True)
class ChoiceAnswer:
    """One answered question.

    Attributes:
        id: Of the question.
        category: Its kind: task, subtask or relation.
        group: What the benchmark's own number averages over.
        question: What was asked; for true/false it holds the statement.
        choices: In the order of their letters.
        truth: `(B)`, or `Yes.`/`No.`.
        text: What the model answered.
    """

    id: str
    category: str
    group: str
    question: str
    choices: tuple[str, ...]
    truth: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ChoiceReport:
    """Scored answers of one model to one benchmark.

    Attributes:
        benchmark: Its name.
        answers: In the order of their ids.
        outcomes: One an answer.
        categories: A row a category, by name.
        groups: A row a group, by name, where groups are not the categories.
        overall: Everything.
        official: The authors' number; None where a part of it was not asked.
        paired_test: Exact McNemar test of the model (first) against the best constant (second).
    """

    benchmark: str
    answers: tuple[ChoiceAnswer, ...]
    outcomes: tuple[ChoiceOutcome, ...]
    categories: tuple[ChoiceRow, ...]
    groups: tuple[ChoiceRow, ...]
    overall: ChoiceRow
    official: Official | None
    paired_test: PairedTest

    @classmethod
    def from_answers(cls, benchmark: str, answers: Sequence[ChoiceAnswer], *, scoring: str) -> ChoiceReport:
        """Scores answers; the report does not depend on their order.

        Args:
            benchmark: Its name.
            answers: At least one.
            scoring: `letter` or `truth`.

        Raises:
            ValueError: There are none, an id occurs twice, or a truth cannot be read.
        """
        if not answers:
            raise ValueError("found no answers, expected at least one; check that the benchmark is not empty")
        if repeated := [id for id, count in Counter(answer.id for answer in answers).items() if count > 1]:
            raise ValueError(f"found ids {repeated[:5]} twice, expected one answer a question; report one model a time")
        ordered = sorted(answers, key=lambda answer: answer.id)
        outcomes = [_score(answer, scoring) for answer in ordered]
        constant = _constant_outcomes([a.category if scoring == "letter" else "" for a in ordered], outcomes)
        guesses = [1 / len(answer.choices) for answer in ordered]

        def rows(names: Sequence[str]) -> tuple[ChoiceRow, ...]:
            made = []
            for name in sorted(set(names)):
                members = [i for i, own in enumerate(names) if own == name]
                made.append(_row(name, members, outcomes, constant, guesses))
            return tuple(made)

        categories, groups = rows([a.category for a in ordered]), rows([a.group for a in ordered])
        overall = _row("overall", list(range(len(ordered))), outcomes, constant, guesses)
        return cls(
            benchmark=benchmark,
            answers=tuple(ordered),
            outcomes=tuple(outcomes),
            categories=categories,
            groups=() if [r.name for r in groups] == [r.name for r in categories] else groups,
            overall=overall,
            official=official_number(benchmark, groups, overall),
            paired_test=mcnemar_exact([outcome.correct for outcome in outcomes], constant),
        )

    def table(self, title: str = "") -> Table:
        """The report for a terminal, under the benchmark's name unless there is another title."""
        table = Table(title=title or self.benchmark, caption=self._verdict(), caption_justify="left")
        table.add_column("category")
        for heading in ("n", "accuracy", "95 % interval", "best constant*", "chance", "unparsed", "true answers"):
            table.add_column(heading, justify="right")
        sections = [section for section in (self.categories, self.groups, (self.overall,)) if section]
        for section in sections:
            for row in section:
                _add(table, row, bold=row is self.overall, ends=row is section[-1] and section is not sections[-1])
        return table

    def summary(self) -> dict[str, Json]:
        """Everything in the report but the answers, in plain JSON types."""
        official: Json = None
        if self.official is not None:
            official = {
                "name": self.official.name,
                "value": self.official.value,
                "interval_95": [self.official.interval.low, self.official.interval.high],
                "best_constant": self.official.best_constant,
            }
        return {
            "scorer_version": f"choices {CHOICE_SCORER_VERSION}",
            "n": len(self.answers),
            "categories": {row.name: _row_json(row) for row in self.categories},
            "groups": {row.name: _row_json(row) for row in self.groups},
            "overall": _row_json(self.overall),
            "official": official,
            "paired_test": {
                "method": "exact McNemar, model against best constant, all questions",
                "only_model_right": self.paired_test.only_first,
                "only_best_constant_right": self.paired_test.only_second,
                "p_value": self.paired_test.p_value,
            },
        }

    def _verdict(self) -> str:
        lines = [
            "* oracle: the constant answer that is right most often, chosen on this very set"
            + ("" if self.benchmark == "vsr" else " for each category"),
            f"alone right on {self.paired_test.only_first} (model) and {self.paired_test.only_second} (best constant): "
            f"exact McNemar p = {self.paired_test.p_value:.3g}",
        ]
        if (official := self.official) is not None:
            lines.append(
                f"{official.name}: {_percent(official.value)} ({_percent(official.interval.low)} to "
                f"{_percent(official.interval.high)}), best constant {_percent(official.best_constant)}"
            )
        elif self.benchmark == "cvbench":
            lines.append("no official number: a source is missing; it needs ADE20K, COCO and Omni3D")
        return "\n".join(lines)


def _score(answer: ChoiceAnswer, scoring: str) -> ChoiceOutcome:
    try:
        if scoring == "truth":
            statement = answer.question.partition("? ")[2] or answer.question
            return score_truth(answer.text, statement=statement, truth=answer.truth)
        return score_letter(answer.text, choices=answer.choices, truth=answer.truth)
    except ValueError as error:
        raise ValueError(f"row {answer.id!r}: {error}") from error


def _constant_outcomes(templates: Sequence[str], outcomes: Sequence[ChoiceOutcome]) -> list[bool]:
    """Whether the most frequent truth of its template answers each question right; ties go to the first letter."""
    truths: dict[str, Counter[str]] = {}
    for template, outcome in zip(templates, outcomes, strict=True):
        truths.setdefault(template, Counter())[outcome.truth] += 1
    best = {name: min(counts, key=lambda truth: (-counts[truth], truth)) for name, counts in truths.items()}
    return [best[template] == outcome.truth for template, outcome in zip(templates, outcomes, strict=True)]


def _row(
    name: str, members: list[int], outcomes: Sequence[ChoiceOutcome], constant: Sequence[bool], chance: Sequence[float]
) -> ChoiceRow:
    n = len(members)
    correct = sum(outcomes[i].correct for i in members)
    truths = Counter(outcomes[i].truth for i in members)
    return ChoiceRow(
        name=name,
        n=n,
        correct=correct,
        unparsed=sum(not outcomes[i].parsed for i in members),
        interval=wilson_interval(correct, n),
        best_constant=sum(constant[i] for i in members) / n,
        chance=sum(chance[i] for i in members) / n,
        shares={truth: count / n for truth, count in sorted(truths.items())},
    )


def _add(table: Table, row: ChoiceRow, *, bold: bool, ends: bool) -> None:
    table.add_row(
        row.name,
        str(row.n),
        _percent(row.accuracy),
        f"{_percent(row.interval.low)} to {_percent(row.interval.high)}",
        _percent(row.best_constant),
        _percent(row.chance),
        str(row.unparsed),
        " ".join(f"{truth} {_percent(share)}" for truth, share in row.shares.items()),
        style="bold" if bold else "",
        end_section=ends,
    )


def _row_json(row: ChoiceRow) -> Json:
    return {
        "n": row.n,
        "correct": row.correct,
        "accuracy": row.accuracy,
        "interval_95": [row.interval.low, row.interval.high],
        "best_constant": row.best_constant,
        "chance": row.chance,
        "unparsed": row.unparsed,
        "true_answers": dict(row.shares),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"

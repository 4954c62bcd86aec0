"""The scorer as a torchmetrics metric, for `validate` and `test` on any number of processes.

All states are whole numbers that are added up over the processes. So the result does not depend on how the questions
are spread: uneven shards, a process without a question, and any order give the same bits as one process.

    C categories of `rows.GROUP_OF` · O outcomes of `outcomes.OUTCOMES`
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from theworld.evaluation.answers import Score, score_answer
from theworld.evaluation.outcomes import OUTCOMES
from theworld.evaluation.rows import DEGREES_AN_HOUR, GROUP_OF, GROUPS
from theworld.types import Question

_ERROR_UNIT = 2.0**-30
_LARGEST_ERROR = 2.0**16


class SpatialAccuracy(Metric):
    """Accuracy and error of free-text answers, overall, by type and by the groups of SpatialRGPT-Bench's paper.

    `compute` gives float64 scalars: `accuracy`, `accuracy/qualitative`, `accuracy/quantitative`,
    `accuracy/<group>` such as `accuracy/below-above`, `unread` (share of answers that state nothing to score),
    `relative_error` (of the lengths that could be read) and `degrees` (of the directions). What had no question is
    left out. A relative error above 65,536 counts as that, so that its sum stays a whole number of 64 bits.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    outcomes: Tensor
    errors: Tensor
    num_errors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._categories = {category: number for number, category in enumerate(GROUP_OF)}
        size = len(self._categories)
        self.add_state("outcomes", torch.zeros(size, len(OUTCOMES), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("errors", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_errors", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, questions: Sequence[Question], answers: Sequence[str]) -> None:
        """Score answers and count them.

        Args:
            questions: What was asked.
            answers: One a question, in the same order.

        Raises:
            ValueError: Their numbers differ, a category is unknown or a ground truth cannot be read.
        """
        if len(questions) != len(answers):
            raise ValueError(
                f"found {len(questions)} questions and {len(answers)} answers; expected one answer a question; "
                "pass the answers of one batch with its questions"
            )
        self.count(questions, [score_answer(q, answer) for q, answer in zip(questions, answers, strict=True)])

    def count(self, questions: Sequence[Question], scores: Sequence[Score]) -> None:
        """Count answers that have been scored already, one a question."""
        outcomes = torch.zeros(self.outcomes.shape, dtype=torch.int64)
        errors = torch.zeros(self.errors.shape, dtype=torch.int64)
        num_errors = torch.zeros(self.errors.shape, dtype=torch.int64)
        for question, score in zip(questions, scores, strict=True):
            category = self._categories[question.qa_category]
            outcomes[category, OUTCOMES.index(score.outcome)] += 1
            if score.error is not None:
                errors[category] += round(min(score.error, _LARGEST_ERROR) / _ERROR_UNIT)
                num_errors[category] += 1
        self.outcomes += outcomes.to(self.outcomes.device)
        self.errors += errors.to(self.errors.device)
        self.num_errors += num_errors.to(self.num_errors.device)

    def compute(self) -> dict[str, Tensor]:
        """The rates and mean errors; an empty dictionary before the first answer."""
        outcomes, totals = self.outcomes.double(), self.outcomes.sum(dim=1).double()  # (C, O), (C)
        correct, read = outcomes[:, OUTCOMES.index("correct")], outcomes[:, :2].sum(dim=1)  # (C), (C)
        members = {"": list(self._categories)} | {
            "/qualitative": [name for name in self._categories if name.endswith(("_predicate", "_choice"))],
            "/quantitative": [name for name in self._categories if not name.endswith(("_predicate", "_choice"))],
        }
        members |= {f"/{group.replace('/', '-').replace(' ', '_')}": list(names) for group, names in GROUPS.items()}
        rates = {f"accuracy{name}": self._ratio(correct, totals, names) for name, names in members.items()}
        rates["unread"] = self._ratio(totals - read, totals, members[""])
        lengths = [name for name in self._categories if name.endswith("_data")]
        sums, counts = self.errors.double() * _ERROR_UNIT, self.num_errors.double()
        rates["relative_error"] = self._ratio(sums, counts, lengths)
        rates["degrees"] = self._ratio(DEGREES_AN_HOUR * sums, counts, ["direction"])
        return {name: rate for name, rate in rates.items() if rate is not None}

    def _ratio(self, parts: Tensor, wholes: Tensor, names: Sequence[str]) -> Tensor | None:
        rows = torch.tensor([self._categories[name] for name in names], device=parts.device)
        whole = wholes[rows].sum()
        return parts[rows].sum() / whole if whole else None

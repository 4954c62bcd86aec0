"""What a question asks for, read once a wording: its kind, its relation or measure, the regions it names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from theworld.evaluation.axes import is_relation
from theworld.evaluation.sentences import clean, regions
from theworld.types import Question

Kind = Literal["yes_no", "choice", "distance", "direction"]
"""What an answer is: a stance, a region, a length or a clock hour."""

_METRIC = re.compile(r"(?:distance|horizontal_distance|vertical_distance|width|height)_data")
_QUESTIONS = 1 << 14


@dataclass(frozen=True)
class Asked:
    """What a question asks for.

    Attributes:
        kind: What its answer is.
        category: SpatialRGPT category, e.g. `left_predicate`, `distance_data`.
        relation: Relation of a stance or choice, e.g. `left`; empty for the others.
        regions: Regions of the question, in order of first mention.
    """

    kind: Kind
    category: str
    relation: str
    regions: tuple[int, ...]


def asked(question: Question) -> Asked:
    """What the question asks for.

    Raises:
        ValueError: The category is none of SpatialRGPT-Bench's, or contradicts the question's type.
    """
    found = _asked(question.qa_category, question.question)
    if found is None:
        raise ValueError(
            f"row {question.id!r}: found category {question.qa_category!r}; expected <relation>_predicate, "
            "<relation>_choice, <measure>_data or direction as in SpatialRGPT-Bench; correct the row's qa_info"
        )
    expected = "qualitative" if found.kind in ("yes_no", "choice") else "quantitative"
    if question.qa_type != expected:
        raise ValueError(
            f"row {question.id!r}: found type {question.qa_type!r} with category {question.qa_category!r}; expected "
            f"{expected!r}; correct the row's qa_info"
        )
    return found


def region_name(region: int) -> str:
    """How questions and answers write a region."""
    return f"Region [{region}]"


@lru_cache(maxsize=_QUESTIONS)
def _asked(category: str, question: str) -> Asked | None:
    """Benchmarks ask the same few hundred questions again and again; None for an unknown category."""
    relation, _, form = category.rpartition("_")
    kind: Kind
    if category == "direction":
        kind, relation = "direction", ""
    elif _METRIC.fullmatch(category):
        kind, relation = "distance", ""
    elif is_relation(relation) and form in ("predicate", "choice"):
        kind = "yes_no" if form == "predicate" else "choice"
    else:
        return None
    return Asked(kind, category, relation, tuple(regions(clean(question))))

"""One way to write a question down in these tests."""

from __future__ import annotations

from typing import Protocol

import pytest

from theworld.types import Question


class Ask(Protocol):
    def __call__(self, category: str, question: str, answer: str, *, id: str = ..., image: str = ...) -> Question: ...


@pytest.fixture(scope="session")
def ask() -> Ask:
    def make(category: str, question: str, answer: str, *, id: str = "row-1", image: str = "kitchen") -> Question:
        qualitative = category.endswith(("_predicate", "_choice"))
        return Question(
            id=id,
            image_id=image,
            question=question,
            answer=answer,
            qa_type="qualitative" if qualitative else "quantitative",
            qa_category=category,
        )

    return make

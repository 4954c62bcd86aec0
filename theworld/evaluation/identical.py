"""Answers of two models, or with and without the image, that are the same to the byte: a fault, and not a tie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from theworld.evaluation.predictions import Prediction


def refuse_identical(answers: Mapping[str, Sequence[Prediction]]) -> None:
    """Refuse to compare answers of which two sets are the same on every question that both have.

    Models that see different things do not word some hundred answers alike. Where they do, the images never arrived,
    or one file was given twice, and a table of equal accuracies would hide it.

    Args:
        answers: What is compared, by what messages call it.

    Raises:
        ValueError: Two are the same; the message names them.
    """
    texts = {name: {p.question.id: p.text for p in predictions} for name, predictions in answers.items()}
    for one, other in combinations(texts, 2):
        shared = texts[one].keys() & texts[other].keys()
        if shared and all(texts[one][id] == texts[other][id] for id in shared):
            raise ValueError(
                f"found the very same answers in {one} and {other} to all {len(shared)} questions, expected others: "
                "one file may have been given twice, or what should differ (image, world tokens) never reached the "
                "model; find out which. If they really answer alike, score them with --allow_identical=true"
            )

"""One answered question as a line of `predictions.jsonl`, and many as a picture to look them over with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from theworld.data.inspection.contact_sheet import Card, contact_sheet
from theworld.data.pictures.regions import RegionStyle
from theworld.evaluation.answering import Answer
from theworld.evaluation.benchmarks.benchmark import Benchmark, Item, show
from theworld.evaluation.prediction_file import Json

SHOWN = 12
"""Questions of the picture."""


def prediction_row(benchmark: Benchmark, item: Item, answered: Answer, image_sha256: str) -> dict[str, Json]:
    """One line of `predictions.jsonl`: all that is needed to score the answer again, and to find its picture.

    Args:
        benchmark: That the question is of.
        item: The question.
        answered: What a model answered.
        image_sha256: Of the encoded image that it was shown.
    """
    question = item.question
    return {
        "id": question.id,
        "question": question.question,
        "ground_truth": question.answer,
        "prediction": answered.text,
        "qa_type": question.qa_type,
        "qa_category": question.qa_category,
        "benchmark": benchmark.name,
        "group": item.group,
        "choices": list(item.choices),
        "image": item.image,
        "image_sha256": image_sha256,
        "regions": [list(box) for box in item.row.boxes],
        "num_tokens": len(answered.tokens),
        "is_complete": answered.is_complete,
    }


def answer_card(benchmark: Benchmark, item: Item, text: str, *, region_style: RegionStyle) -> Card:
    """A question as the model saw it, with its answer and the truth.

    Args:
        benchmark: That the question is of.
        item: The question.
        text: The model's answer.
        region_style: How regions were drawn.
    """
    question = item.question
    return Card(
        title=question.id,
        notes=(question.qa_category, f"truth: {question.answer}"),
        image=show(benchmark, item, region_style=region_style).image,
        turns=((question.question, text or "(no text)"),),
    )


def answer_sheet(
    benchmark: Benchmark, items: Sequence[Item], texts: Mapping[str, str], *, region_style: RegionStyle
) -> Image.Image:
    """Cards of up to twelve questions, spread evenly over all.

    Args:
        benchmark: That the questions are of.
        items: The questions, at least one.
        texts: The model's answers by the id of the question.
        region_style: How regions were drawn.
    """
    chosen = np.unique(np.linspace(0, len(items) - 1, min(SHOWN, len(items))).round().astype(int))
    cards = [
        answer_card(benchmark, item, texts[item.row.id], region_style=region_style)
        for item in (items[number] for number in chosen)
    ]
    return contact_sheet(cards, title=f"{benchmark.name}: {len(cards)} of {len(items):,} answers")

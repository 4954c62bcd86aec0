"""Conversations in OSD's schema: `filename`, `conversations`, one `bbox` and one `rle` for every `<mask>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np

from theworld.data.pictures.masks import Rle
from theworld.data.synthetic.questions import MASK, QuestionDeck, RegionQuestion
from theworld.data.synthetic.truth import SceneTruth

Message = TypedDict("Message", {"from": str, "value": str})


class QaInfo(TypedDict):
    """What SpatialRGPT-Bench says about a question."""

    type: str
    category: str


class ImageInfo(TypedDict):
    """What SpatialRGPT-Bench says about an image."""

    file_path: str
    height: int
    width: int


class Row(TypedDict):
    """One conversation about one image; the optional keys are those of SpatialRGPT-Bench."""

    id: str
    filename: str
    conversations: list[Message]
    bbox: list[list[int]]
    rle: list[Rle]
    text_q: NotRequired[str]
    qa_info: NotRequired[QaInfo]
    image_info: NotRequired[ImageInfo]


def make_row(scene: SceneTruth, turns: Sequence[tuple[str, str, tuple[int, ...]]], *, id: str) -> Row:
    """A row from (question, answer, regions in order of mention)."""
    conversations: list[Message] = []
    mentioned: list[int] = []
    for number, (question, answer, regions) in enumerate(turns):
        assert question.count("<mask>") == len(regions), (question, regions)
        conversations.append({"from": "human", "value": ("<image>\n" if number == 0 else "") + question})
        conversations.append({"from": "gpt", "value": answer})
        mentioned += regions
    return {
        "id": id,
        "filename": scene.id,
        "conversations": conversations,
        "bbox": [list(scene.objects[i].box) for i in mentioned],
        "rle": [scene.objects[i].rle for i in mentioned],
    }


def training_row(scene: SceneTruth, deck: QuestionDeck, rng: np.random.Generator, *, turns: int) -> Row | None:
    """A conversation of up to `turns` questions of which none repeats another's fact; None if nothing can be asked."""
    questions: list[RegionQuestion] = []
    for _ in range(turns):
        question = deck.ask(scene, rng, {q.fact for q in questions})
        if question is None:
            break
        questions.append(question)
    if not questions:
        return None
    order = rng.permutation(len(questions))
    picked = [questions[int(i)] for i in order]
    return make_row(scene, [(q.question, q.answer, q.regions) for q in picked], id=scene.id)


def bench_rows(scene: SceneTruth, deck: QuestionDeck, rng: np.random.Generator, *, questions: int) -> list[Row]:
    """One row a question, with the keys that SpatialRGPT-Bench adds."""
    rows: list[Row] = []
    taken: set[tuple[str, frozenset[int]]] = set()
    for number in range(questions):
        question = deck.ask(scene, rng, taken)
        if question is None:
            break
        taken.add(question.fact)
        row = make_row(scene, [(question.question, question.answer, question.regions)], id=f"{scene.id}-{number}")
        row["text_q"] = _named(question.question)
        row["qa_info"] = {"type": question.qa_type, "category": question.category}
        row["image_info"] = {
            "file_path": f"{scene.id}.jpg",
            "height": scene.image_size,
            "width": scene.image_size,
        }
        rows.append(row)
    return rows


def _named(question: str) -> str:
    for number in range(question.count(MASK)):
        question = question.replace(MASK, f"Region [{number}]", 1)
    return question

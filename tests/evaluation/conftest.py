"""One way to write a question down in these tests, and an export of the tiny base with a world branch to answer it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Protocol

import pytest
import torch

from theworld.data.processor import TheWorldProcessor
from theworld.evaluation.loaded_model import LoadedModel, load_model
from theworld.evaluation.quantities import parse_length
from theworld.evaluation.sentences import clean, readings, regions
from theworld.models.theworld import TheWorld
from theworld.types import Question

WORLD_SIDE = 32


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


class ReadLength(Protocol):
    def __call__(self, text: str, *, category: str = ..., question: str = ...) -> Fraction | None: ...


@pytest.fixture(scope="session")
def length() -> ReadLength:
    def read(text: str, *, category: str = "distance_data", question: str = "") -> Fraction | None:
        return parse_length(readings(clean(text), consequents=True), category=category, asked=regions(clean(question)))

    return read


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny base with a new world projector, as a stage exports it."""
    folder: Path = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    model = TheWorld.from_pretrained("theworld-tiny", world_image_size=WORLD_SIDE, dtype=torch.float32)
    model.save_pretrained(folder)
    TheWorldProcessor.from_pretrained(
        "theworld-tiny", num_world_tokens=model.config.num_world_tokens, world_image_size=WORLD_SIDE
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def loaded(export: str) -> LoadedModel:
    return load_model(export, dtype=torch.float32, device=torch.device("cpu"))

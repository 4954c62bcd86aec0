"""What a trained model answers when it is given the world latents of a cache, and how often it is right.

N world tokens of a prompt · D hidden size
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from scipy.stats import binomtest

from experiments.motion_control.frames import Split
from theworld.data.features.drawings import drawing_key
from theworld.data.features.store import FeatureStore
from theworld.data.samples import Prompts
from theworld.evaluation.audit.recording import greedy_answers
from theworld.evaluation.loaded_model import load_model
from theworld.evaluation.statistics import cluster_bootstrap, mcnemar_exact, wilson_interval
from theworld.models.interventions import Intervention, intervene

BATCH = 40
LONGEST_ANSWER = 8


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Answers of one arm, question by question in the order of the rows.

    Attributes:
        ids: Of the rows.
        answers: What was said, as one word.
        truths: What is right.
    """

    ids: tuple[str, ...]
    answers: tuple[str, ...]
    truths: tuple[str, ...]

    @property
    def correct(self) -> list[bool]:
        """Whether each is right."""
        return [answer == truth for answer, truth in zip(self.answers, self.truths, strict=True)]


def ask(export: Path, split: Split, features: Path, *, side: int) -> Answered:
    """Let a model answer the questions of a split, greedily.

    Args:
        export: Of a run.
        split: Its files.
        features: Cache whose world latents the model is given.
        side: Of the world encoder's frame, in pixels.
    """
    loaded = load_model(str(export), dtype=torch.float32, device=torch.device("cpu"))
    assert loaded.model.cosmos_encoder is not None
    samples, store = split.samples(side), FeatureStore(features, "world_latents")
    keys = [drawing_key(samples.index.text("image_sha256", row), (), "box") for row in range(len(samples))]
    prompts = Prompts(samples, batch_size=BATCH)
    answers: list[str] = []
    for group, asked in zip(prompts.groups, prompts, strict=True):
        latents = torch.stack([store.read(int(row), keys[row]) for row in group])
        with torch.no_grad():
            tokens = loaded.model.cosmos_encoder.project(latents)  # (B, N, D)
        batch = replace(asked.batch, world_pixel_values=asked.batch.world_pixel_values[:0])
        with intervene(loaded.model, Intervention(world_tokens=tokens)):
            answers += greedy_answers(loaded.model, loaded.processor, batch, max_new_tokens=LONGEST_ANSWER)
    return Answered(
        ids=tuple(question.id for question in prompts.questions),
        answers=tuple(map(word, answers)),
        truths=tuple(word(question.answer) for question in prompts.questions),
    )


def word(answer: str) -> str:
    """`Left.` → `left`."""
    return answer.strip().removesuffix(".").casefold()


def accuracy(answered: Answered) -> dict[str, object]:
    """How often an arm is right, with Wilson's interval, and the exact test against a coin."""
    right, n = sum(answered.correct), len(answered.correct)
    interval = wilson_interval(right, n)
    return {
        "n": n,
        "right": right,
        "accuracy": right / n,
        "interval": [interval.low, interval.high],
        "p_chance": float(binomtest(right, n, 0.5).pvalue),
    }


def compare(first: Answered, second: Answered) -> dict[str, object]:
    """The exact test of two arms on the same questions, and their difference with an interval over scenes."""
    if first.ids != second.ids:
        raise ValueError(
            "found answers to other questions, expected those of the same rows; ask both arms the same split"
        )
    difference = [float(a) - float(b) for a, b in zip(first.correct, second.correct, strict=True)]
    interval = cluster_bootstrap(difference, [id.rsplit("-", 1)[0] for id in first.ids])
    return asdict(mcnemar_exact(first.correct, second.correct)) | {
        "difference": sum(difference) / len(difference),
        "interval_over_scenes": [interval.low, interval.high],
    }

"""What a trained model answers when it is given the world latents of a cache, and how often it is right.

B prompts of a batch · C latent channels · h, w latent cells
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from scipy.stats import binomtest

from experiments.motion_control.frames import Split
from theworld.data.features.drawings import drawing_key
from theworld.data.features.store import FeatureStore
from theworld.data.samples import Prompts
from theworld.evaluation.answering import answer_batch
from theworld.evaluation.statistics import cluster_bootstrap, mcnemar_exact, wilson_interval
from theworld.models.interventions import Intervention, future_is_present, intervene
from theworld.models.theworld import TheWorld

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


def ask(export: Path, split: Split, features: Path, *, side: int, without_future: bool = False) -> Answered:
    """Let a model answer the questions of a split, greedily.

    `theworld evaluate` and `theworld audit` make latents of one image, which these are not; so they are put in place of
    the world branch's, as an audit does it.

    Args:
        export: Of a run.
        split: Its files.
        features: Cache whose world latents the model is given.
        side: Of the world encoder's frame, in pixels.
        without_future: Replace the second latent frame by the first, as the audit's arm does.
    """
    model = TheWorld.from_pretrained(export)
    assert model.cosmos_encoder is not None
    samples, store = split.samples(side), FeatureStore(features, "world_latents")
    keys = [drawing_key(samples.index.text("image_sha256", row), (), "box") for row in range(len(samples))]
    prompts = Prompts(samples, batch_size=BATCH)
    answers: list[str] = []
    for group, asked in zip(prompts.groups, prompts, strict=True):
        latents = torch.stack([store.read(int(row), keys[row]) for row in group])  # (B, C, 2, h, w)
        with torch.no_grad():
            tokens = model.cosmos_encoder.project(future_is_present(latents) if without_future else latents)
        batch = replace(asked.batch, world_pixel_values=asked.batch.world_pixel_values[:0])
        with intervene(model, Intervention(world_tokens=tokens)):
            found = answer_batch(model, samples.processor, batch, max_new_tokens=LONGEST_ANSWER)
        answers += [one.text for one in found]
    return Answered(
        ids=tuple(question.id for question in prompts.questions),
        answers=tuple(map(word, answers)),
        truths=tuple(word(question.answer) for question in prompts.questions),
    )


def best_threshold(answered: Answered, second: Mapping[str, float]) -> Answered:
    """What the best rule that sees the second frame alone would say: `yes` above the side that serves it best.

    Args:
        answered: Any arm; gives rows and truths, to which the threshold is fitted.
        second: Side of the object in the second frame, by row.
    """
    sizes = [second[id] for id in answered.ids]
    rules = (replace(answered, answers=tuple("yes" if s > edge else "no" for s in sizes)) for edge in sizes)
    return max(rules, key=lambda rule: sum(rule.correct))


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

"""What an audit found, and the files a program reads it from: `audit.json` and the answers of every arm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from theworld.evaluation.answers import SCORER_VERSION
from theworld.evaluation.audit.arms import ARMS, FUTURE_ARMS
from theworld.evaluation.audit.attention_mass import AttentionMass
from theworld.evaluation.audit.comparison import Answers, ArmResult, Verdict
from theworld.evaluation.audit.signals import GroupGradient, Loudness
from theworld.evaluation.predictions import Prediction
from theworld.types import Question

AUDIT_VERSION = "2"
"""Changes with any definition of an arm, a measurement or a verdict."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of an audit.

    Args:
        batch_size: Most prompts of a batch; the same batches in all arms.
        max_new_tokens: Longest answer, in tokens.
        probes: Samples over which attention and gradients are measured.
        seed: Of the noise and of the exchange between samples.
        level: Of significance, for the verdicts.
    """

    batch_size: int = 32
    max_new_tokens: int = 32
    probes: int = 8
    seed: int = 0
    level: float = 0.05

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_new_tokens", "probes"):
            if getattr(self, name) < 1:
                raise ValueError(f"found {name}={getattr(self, name)}, expected at least 1")
        if not 0 < self.level < 1 or self.seed < 0:
            raise ValueError(f"found level={self.level} and seed={self.seed}, expected 0 < level < 1 and seed >= 0")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an audit found.

    Attributes:
        model: What was audited: the path or name it was loaded from.
        data: The rows that were asked.
        questions: The set, in order.
        answers: By arm.
        results: By arm, in the order of `arms_of`.
        verdict: What they say; not to be believed if there are `errors`.
        errors: What makes the arms say nothing, each with its likely cause.
        mass: Attention, layer by layer.
        loudness: Root mean squares of the tokens.
        gradients: Norm of the gradient of each parameter group.
        replay_difference: Largest difference of logits between the towers running and their outputs replayed.
        blank_image: Which tower saw blank pictures by intention.
        settings: Of this audit.
    """

    model: str
    data: str
    questions: tuple[Question, ...]
    answers: dict[str, Answers]
    results: tuple[ArmResult, ...]
    verdict: Verdict
    errors: tuple[str, ...]
    mass: AttentionMass
    loudness: Loudness
    gradients: dict[str, GroupGradient]
    replay_difference: float
    blank_image: str
    settings: Settings

    @property
    def n(self) -> int:
        """Questions."""
        return len(self.questions)

    def result(self, arm: str) -> ArmResult:
        """Of one arm."""
        return next(result for result in self.results if result.arm == arm)

    def summary(self) -> dict[str, object]:
        """Everything but the answers, in plain JSON types."""
        return {
            "audit_version": AUDIT_VERSION,
            "scorer_version": SCORER_VERSION,
            "model": self.model,
            "data": self.data,
            "n": self.n,
            "num_images": len({question.image_id for question in self.questions}),
            "blank_image": self.blank_image,
            "settings": asdict(self.settings),
            "errors": list(self.errors),
            "verdict": asdict(self.verdict) if not self.errors else None,
            "arms": {
                r.arm: {"means": (ARMS | FUTURE_ARMS)[r.arm], "accuracy": r.accuracy} | asdict(r) for r in self.results
            },
            "attention_mass": asdict(self.mass),
            "root_mean_square": asdict(self.loudness),
            "gradient": {group: asdict(gradient) for group, gradient in self.gradients.items()},
            "replay_difference": self.replay_difference,
        }

    def write(self, folder: Path) -> list[Path]:
        """Write `audit.json` and `predictions/<arm>.jsonl`; returns their paths."""
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        summary = folder / "audit.json"
        text = json.dumps(self.summary(), indent=2, ensure_ascii=False, allow_nan=False)
        summary.write_text(text + "\n", encoding="utf-8", newline="\n")
        paths = [summary]
        for arm, answers in self.answers.items():
            paths.append(folder / "predictions" / f"{arm}.jsonl")
            paths[-1].write_text(_lines(arm, self.questions, answers), encoding="utf-8", newline="\n")
        return paths


def _lines(arm: str, questions: Sequence[Question], answers: Answers) -> str:
    """The predictions in the format of all commands, with the arm beside them."""
    rows = []
    for question, text in zip(questions, answers.texts, strict=True):
        row = Prediction(question, text).row() | {"arm": arm}
        rows.append(json.dumps(row, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n")
    return "".join(rows)

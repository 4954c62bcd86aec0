"""Stages of a run: which groups of parameters train, how fast and for how long. Pure functions of the optimizer step.

A run walks through its stages in order (`callbacks/stage_schedule.py` applies them), so everything here can be
computed from the step alone, and a resumed run needs no state of ours. The exception is a stage that ends early
(`callbacks/stage_plateau.py`): from then on the run has another schedule, and the checkpoint says at which step.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Literal

from theworld.models.parameter_groups import GROUPS


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Peak learning rate of each group; a group without one is frozen.

    Args:
        world_projector: Rate of the projector from latents to world tokens.
        world_encoder: Rate of the Cosmos VAE's encoder.
        vision: Rate of SigLIP and of Gemma's own projector behind it.
        language: Rate of Gemma's language model, embeddings included.
    """

    world_projector: float | None = None
    world_encoder: float | None = None
    vision: float | None = None
    language: float | None = None

    def __post_init__(self) -> None:
        for group, rate in asdict(self).items():
            if rate is not None and not (0.0 < rate < math.inf):
                raise ValueError(
                    f"found learning rate {rate} for {group}, expected > 0; leave the group out to freeze it"
                )

    def trained(self) -> dict[str, float]:
        """Rates of the groups that train, in the order of `GROUPS`."""
        return {group: rate for group, rate in asdict(self).items() if rate is not None}


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """When a stage ends before its `max_steps`: when the validation loss has stopped falling.

    Args:
        every_n_steps: Optimizer steps of the stage from one measurement of the validation loss to the next.
        patience: So many measurements in a row without an improvement end the stage.
        min_delta: An improvement is a loss below the lowest one so far by more than this, in nats a target token.
    """

    every_n_steps: int
    patience: int
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.every_n_steps < 1:
            raise ValueError(f"found every_n_steps={self.every_n_steps}, expected at least 1 optimizer step")
        if self.patience < 1:
            raise ValueError(f"found patience={self.patience}, expected at least 1 measurement")
        if not 0.0 <= self.min_delta < math.inf:
            raise ValueError(f"found min_delta={self.min_delta}, expected 0 or more nats a target token")

    def is_reached(self, losses: Sequence[float]) -> bool:
        """Whether the stage ends after these measurements, oldest first. A loss that is no number is no improvement."""
        lowest, without = math.inf, 0
        for loss in losses:
            improved = loss < lowest - self.min_delta
            lowest, without = (loss, 0) if improved else (lowest, without + 1)
        return without >= self.patience


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of a run in which the same parameters train.

    Args:
        learning_rates: Peak rate of each group that trains; the others are frozen.
        max_steps: Length in optimizer steps.
        warmup_steps: Optimizer steps of linear warmup, for groups that were frozen in the stage before. A stage
            shorter than its warmup (a trial run with a smaller `max_steps`) ends below the peak rate.
        min_lr_ratio: The cosine ends at this fraction of the peak rate.
        recompute: Decoder layers that run again in the backward pass, for less memory and more time: `none`,
            `selective` (every second one) or `full`.
        advance_on_plateau: When to go on to the next stage before `max_steps`; by default never. The learning rate
            follows the cosine of the whole stage until then.
    """

    learning_rates: LearningRates
    max_steps: int
    warmup_steps: int = 0
    min_lr_ratio: float = 0.1
    recompute: Literal["none", "selective", "full"] = "none"
    advance_on_plateau: Plateau | None = None

    def __post_init__(self) -> None:
        if not self.learning_rates.trained():
            raise ValueError(f"found no learning rate, expected one for at least one of {', '.join(GROUPS)}")
        if self.max_steps < 1:
            raise ValueError(f"found max_steps={self.max_steps}, expected at least 1 optimizer step")
        if self.warmup_steps < 0:
            raise ValueError(f"found warmup_steps={self.warmup_steps}, expected 0 or more optimizer steps")
        if not 0.0 <= self.min_lr_ratio <= 1.0:
            raise ValueError(f"found min_lr_ratio={self.min_lr_ratio}, expected 0 to 1")


class Schedule:
    """The stages of a run laid end to end.

    Args:
        stages: Stages by name, in the order in which they run.
        ended: Stages that ended early, and how many optimizer steps each of them had.
    """

    def __init__(self, stages: Mapping[str, Stage], ended: Mapping[str, int] | None = None) -> None:
        if not stages:
            raise ValueError("found no stages, expected at least one; give model.stages in the config")
        if bad := [name for name in stages if not re.fullmatch(r"[\w-]+", name)]:
            raise ValueError(
                f"found stage name {bad[0]!r}, expected letters, digits, '_' and '-' only: it names a directory"
            )
        self.names = tuple(stages)
        self.stages = tuple(stages.values())
        self.ended = dict(ended or {})
        for name, steps in self.ended.items():
            if name not in stages or not 1 <= steps <= stages[name].max_steps:
                raise ValueError(
                    f"found that stage {name!r} ended after {steps} steps, expected one of {', '.join(stages)} and no "
                    "more steps than it may have; resume with the stages the checkpoint was written with"
                )
        self.boundaries = tuple(accumulate(self.ended.get(name, stage.max_steps) for name, stage in stages.items()))
        self.begins = (0, *self.boundaries[:-1])
        self.total_steps = self.boundaries[-1]

    def with_ended(self, ended: Mapping[str, int]) -> Schedule:
        """The same stages, of which these ended early."""
        return Schedule(dict(zip(self.names, self.stages, strict=True)), ended)

    def ending_at(self, step: int) -> Schedule:
        """The same stages, where the one that made the last of `step` optimizer steps ends with it."""
        index = self.stage_index(step - 1)
        return self.with_ended(self.ended | {self.names[index]: step - self.begins[index]})

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups that train in at least one stage, in the order of `GROUPS`."""
        return tuple(group for group in GROUPS if any(group in s.learning_rates.trained() for s in self.stages))

    def untouched_until(self, group: str) -> int:
        """How many optimizer steps are made before the first one that trains `group`; all of them if none does."""
        begins = zip(self.stages, self.begins, strict=True)
        return next((begin for s, begin in begins if group in s.learning_rates.trained()), self.total_steps)

    def stage_index(self, step: int) -> int:
        """Number of the stage in which optimizer step `step` is made; the last one for any later step."""
        return min(bisect_right(self.boundaries, step), len(self.stages) - 1)

    def stage(self, step: int) -> Stage:
        """The stage in which optimizer step `step` is made."""
        return self.stages[self.stage_index(step)]

    def name(self, step: int) -> str:
        """Name of the stage in which optimizer step `step` is made."""
        return self.names[self.stage_index(step)]

    def finished(self, step: int) -> str | None:
        """Name of the stage that is complete when exactly `step` optimizer steps are made."""
        return self.names[self.boundaries.index(step)] if step in self.boundaries else None

    def learning_rate(self, group: str, step: int) -> float:
        """Learning rate of `group` for optimizer step `step`: 0 while frozen, else warmup, then a cosine."""
        index = self.stage_index(step)
        stage = self.stages[index]
        peak = stage.learning_rates.trained().get(group)
        if peak is None:
            return 0.0
        carried_over = index > 0 and group in self.stages[index - 1].learning_rates.trained()
        warmup = 0 if carried_over else stage.warmup_steps
        done = step - self.begins[index]
        if done < warmup:
            return peak * (done + 1) / warmup
        progress = min(1.0, (done - warmup) / (stage.max_steps - warmup))
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return peak * (stage.min_lr_ratio + (1.0 - stage.min_lr_ratio) * cosine)

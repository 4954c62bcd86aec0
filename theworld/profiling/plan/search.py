"""Which ways to run a stage fit a card, and the one to take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from theworld.profiling.plan import calibration
from theworld.profiling.plan.choices import Choices, possible_choices
from theworld.profiling.plan.prediction import Planner, Run, StageMemory
from theworld.profiling.plan.training_step import GRADIENTS, OPTIMIZER

ROUNDED_TO = 256
"""Token budgets that are proposed are multiples of this."""

_LAYERS = "activations: decoder layers"
_KEPT_SHARE = {"none": 1.0, "selective": 0.53, "full": 0.07}
"""What decoder layers keep for the backward pass, about: only to leave out what cannot fit, never as an answer."""

_OPTIMISM = 0.85
"""A way is simulated if so much of the rough estimate of its tensors fits."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What was found for one size of memory.

    Attributes:
        memory_gb: The card's, in 10⁹ bytes.
        best: The first way that fits, in the order of `possible_choices`; None if none does.
        flags: To add to the command for it.
        simulated: All ways that were looked at in full.
    """

    memory_gb: float
    best: StageMemory | None
    flags: tuple[str, ...]
    simulated: tuple[StageMemory, ...]


@dataclass(frozen=True)
class Search:
    """Looks for ways to run one stage.

    Args:
        planner: Remembers what it simulated.
        run: What is not searched.
        name: Of the stage.
        configured: What the config says, which is simulated in any case.
        max_seq_length: Least token budget.
    """

    planner: Planner
    run: Run
    name: str
    configured: Choices
    max_seq_length: int

    def find(self, memory_gb: float, *, progress: Callable[[StageMemory], None]) -> Fit:
        """The best way on a card of `memory_gb` × 10⁹ bytes; `progress` is told of every way that is simulated."""
        simulated: list[StageMemory] = []
        for choices in self._possible():
            if simulated and least_needed_bytes(simulated[0], choices) > memory_gb * calibration.GB:
                continue
            found = self.planner.memory(self.run, self.name, choices)
            simulated.append(found)
            progress(found)
            if found.needed_bytes <= memory_gb * calibration.GB:
                flags = choices.flags(self.configured, self.name, micro_batches=self.run.micro_batches)
                return Fit(memory_gb=memory_gb, best=found, flags=tuple(flags), simulated=tuple(simulated))
        return Fit(memory_gb=memory_gb, best=None, flags=(), simulated=tuple(simulated))

    def _possible(self) -> list[Choices]:
        schedule = self.run.module.schedule
        stage = schedule.stages[schedule.names.index(self.name)]
        return possible_choices(
            self.configured,
            budgets=token_budgets(self.run, self.configured.token_budget, self.max_seq_length),
            trained=stage.learning_rates.trained(),
            ever_trained=schedule.groups,
        )


def token_budgets(run: Run, configured: int, max_seq_length: int) -> list[int]:
    """The config's budget, then those of fewer samples a row, longest first."""
    samples = run.samples_of(configured)
    found = [configured]
    for count in range(len(samples) - 1, 0, -1):
        tokens = sum(sample.tokens for sample in samples[:count])
        budget = max(-(-tokens // ROUNDED_TO) * ROUNDED_TO, max_seq_length)
        if budget < found[-1]:
            found.append(budget)
    return found


def least_needed_bytes(known: StageMemory, choices: Choices) -> int:
    """Below this another way cannot be, to judge by one that is known."""
    allocated = calibration.allocated_bytes(round(_OPTIMISM * rough_bytes(known, choices)))
    return calibration.needed_bytes(allocated, gpus=choices.gpus)


def rough_bytes(known: StageMemory, choices: Choices) -> float:
    """What another way would need, by rules of thumb from one that is known: far off by a tenth and more."""
    before, parts = known.choices, known.peak.categories
    rows = choices.token_budget / before.token_budget
    kept = _KEPT_SHARE[choices.recompute] / _KEPT_SHARE[before.recompute]
    weights = sum(size for name, size in parts.items() if "weights" in name)
    language = parts.get("weights: language", 0)
    if choices.low_bit_base and not before.low_bit_base:
        weights -= language * 2 // 5  # of 4B's, whose embedding stays as it is
    state = parts.get(GRADIENTS, 0) + parts.get(OPTIMIZER, 0)
    if choices.optimizer != before.optimizer == "adamw":
        weights, state = weights // 2, state // 2
    if choices.strategy == "fsdp2" != before.strategy:
        weights, state = 3 * weights // choices.gpus, state // choices.gpus
    rest = known.peak.bytes - sum(parts.get(name, 0) for name in (GRADIENTS, OPTIMIZER, _LAYERS))
    rest -= sum(size for name, size in parts.items() if "weights" in name)
    return weights + state + rows * (parts.get(_LAYERS, 0) * kept + rest)

"""Which ways to run a stage fit a card, and the one to take."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from theworld.profiling.plan import calibration
from theworld.profiling.plan.choices import Choices, possible_choices
from theworld.profiling.plan.live_memory import WORKING
from theworld.profiling.plan.prediction import Planner, Run, StageMemory
from theworld.profiling.plan.training_step import GRADIENTS, OPTIMIZER

ROUNDED_TO = 256
"""Token budgets that are proposed are multiples of this."""

_LAYERS = "activations: decoder layers"
_KEPT_SHARE = {"none": 1.0, "selective": 0.5, "full": 0.0}
"""How many of the decoder layers keep what they need for the backward pass."""

_KEPT_BYTES = {False: 27, True: 38}
"""What a decoder layer keeps of a token, in bytes for each of the hidden size: frozen, and training (4B's shape)."""

_STATE_SHARE = {"adamw_bf16": 0.5, "adamw_8bit": 0.25}
"""Moments of an optimizer, over those in float32."""

_OPTIMISM = 0.8
"""A way is simulated if so much of the rough estimate of its tensors fits. Estimates of runs in
`experiments/planning/predicted.json` by each other were up to a fifth too high."""


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
            if simulated and self._least(simulated[0], choices) > memory_gb * calibration.GB:
                continue
            found = self.planner.memory(self.run, self.name, choices)
            simulated.append(found)
            progress(found)
            if found.needed_bytes <= memory_gb * calibration.GB:
                flags = choices.flags(self.configured, self.name, micro_batches=self.run.micro_batches)
                return Fit(memory_gb=memory_gb, best=found, flags=tuple(flags), simulated=tuple(simulated))
        return Fit(memory_gb=memory_gb, best=None, flags=(), simulated=tuple(simulated))

    def _least(self, known: StageMemory, choices: Choices) -> int:
        return least_needed_bytes(known, choices, self.run, trains="language" in self._trained())

    def _trained(self) -> Collection[str]:
        schedule = self.run.module.schedule
        return schedule.stages[schedule.names.index(self.name)].learning_rates.trained()

    def _possible(self) -> list[Choices]:
        return possible_choices(
            self.configured,
            budgets=token_budgets(self.run, self.configured.token_budget, self.max_seq_length),
            trained=self._trained(),
            ever_trained=self.run.module.schedule.groups,
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


def least_needed_bytes(known: StageMemory, choices: Choices, run: Run, *, trains: bool) -> int:
    """Below this another way will not be, to judge by one that is known.

    Args:
        known: Simulated.
        choices: The other way.
        run: Whose model it is.
        trains: The language model trains.
    """
    text = run.config.get_text_config()
    layers = text.num_hidden_layers * text.hidden_size * _KEPT_BYTES[trains]
    accumulates = run.micro_batches // choices.gpus > 1
    rough = rough_bytes(known, choices, kept_per_token=layers, accumulates=accumulates)
    return calibration.needed_bytes(calibration.allocated_bytes(round(_OPTIMISM * rough)), gpus=choices.gpus)


def rough_bytes(known: StageMemory, choices: Choices, *, kept_per_token: int, accumulates: bool) -> float:
    """What another way would take, by rules of thumb from one that is known: off by a tenth and more.

    It is only for leaving out what cannot fit; every answer is simulated. The most lives either at the end of the
    forward pass, with all that layers keep, or late in the backward pass, with all gradients: never both.

    Args:
        known: Simulated.
        choices: The other way.
        kept_per_token: Bytes that all layers keep of a token, if `known` does not show it.
        accumulates: Gradients of an earlier micro-batch are there in the forward pass as well.
    """
    before, parts = known.choices, known.peak.categories
    if before.recompute == "none":
        kept_per_token = parts.get(_LAYERS, 0) // before.token_budget
    rows = choices.token_budget / before.token_budget
    weights = sum(size for name, size in parts.items() if "weights" in name)
    gradients, state, working = (parts.get(name, 0) for name in (GRADIENTS, OPTIMIZER, WORKING))
    rest = known.peak.bytes - weights - gradients - state - working
    rest -= round(before.token_budget * kept_per_token * _KEPT_SHARE[before.recompute])
    if choices.low_bit_base and not before.low_bit_base:
        weights -= parts.get("weights: language", 0) * 2 // 5  # of 4B's, whose embedding stays as it is
    if choices.optimizer != before.optimizer == "adamw":
        weights, gradients = weights // 2, gradients // 2
        state = round(state * _STATE_SHARE[choices.optimizer])
    if choices.strategy == "fsdp2" != before.strategy:
        weights, gradients, state = (part // choices.gpus for part in (weights, gradients, state))
    kept = choices.token_budget * kept_per_token * _KEPT_SHARE[choices.recompute]
    after_forward = kept + (gradients if accumulates else 0)
    return weights + state + rows * max(rest, 0) + max(after_forward, gradients + rows * working)

"""What a run can choose to need less memory, and the flags that say so."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from theworld.models.execution import Recompute
from theworld.profiling.plan.calibration import FLOOR_RATIOS
from theworld.training.module import TheWorldModule
from theworld.training.optimizers import OptimizerChoice
from theworld.training.stages import Schedule

Strategy = Literal["one device", "ddp", "fsdp2"]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """One way to run a stage.

    Attributes:
        token_budget: Tokens of a packed row.
        recompute: Decoder layers that run twice.
        optimizer: See `theworld.training.optimizers`.
        low_bit_base: The frozen language model in 8 bits.
        strategy: How several GPUs share the work.
        gpus: How many.
    """

    token_budget: int
    recompute: Recompute
    optimizer: OptimizerChoice
    low_bit_base: bool
    strategy: Strategy = "one device"
    gpus: int = 1

    def flags(self, configured: Choices, stage: str, *, micro_batches: int) -> list[str]:
        """What to add to the command of a run that is configured otherwise.

        Args:
            configured: What the config says.
            stage: Name of the stage.
            micro_batches: Of an optimizer step, over all GPUs.
        """
        given = {
            f"model.stages.{stage}.recompute": (self.recompute, configured.recompute),
            "model.optimizer": (self.optimizer, configured.optimizer),
            "model.low_bit_base": (self.low_bit_base, configured.low_bit_base),
            "data.token_budget": (self.token_budget, configured.token_budget),
            "trainer.devices": (self.gpus, configured.gpus),
        }
        flags = [f"--{name}={_shown(mine)}" for name, (mine, theirs) in given.items() if mine != theirs]
        if self.gpus != configured.gpus:
            flags.append(f"--trainer.accumulate_grad_batches={max(1, micro_batches // self.gpus)}")
        if self.strategy != configured.strategy:
            flags.append(f"--trainer.strategy={_STRATEGIES[self.strategy]}")
        return flags

    def apply(self, module: TheWorldModule) -> TheWorldModule:
        """A module of the same settings, but for these; without a model."""
        changed = copy.copy(module)
        # A shallow copy of a module shares the dictionary of its children.
        changed.__dict__["_modules"] = {name: child for name, child in module._modules.items() if name != "model"}
        changed.__dict__["model"] = None
        changed.optimizer_choice, changed.low_bit_base = self.optimizer, self.low_bit_base
        stages = zip(module.schedule.names, module.schedule.stages, strict=True)
        changed.schedule = Schedule({name: replace(stage, recompute=self.recompute) for name, stage in stages})
        return changed


_STRATEGIES = {
    "one device": "auto",
    "ddp": "ddp",
    "fsdp2": "theworld.training.parallel.strategy.FullySharded",
}


def possible_choices(
    configured: Choices, *, budgets: Sequence[int], trained: Collection[str], ever_trained: Collection[str]
) -> list[Choices]:
    """All ways to run a stage, the best first: fewest GPUs, weights as they are, then the fastest, then long rows.

    Args:
        configured: What the config says; it comes first.
        budgets: Token budgets to try, longest first.
        trained: Groups that the stage trains.
        ever_trained: Groups that any stage trains.
    """
    optimizers: list[OptimizerChoice] = [configured.optimizer]
    if {"language", "vision"} & set(trained) and configured.optimizer == "adamw":
        optimizers += ["adamw_bf16", "adamw_8bit"]
    low_bits = [configured.low_bit_base] if "language" in ever_trained else sorted({configured.low_bit_base, True})
    layouts: list[tuple[Strategy, int]] = [(configured.strategy, configured.gpus)]
    if "language" in trained:
        layouts += [("fsdp2", gpus) for gpus in (2, 4, 8) if gpus > configured.gpus]
    recomputes = sorted(get_args(Recompute), key=lambda recompute: FLOOR_RATIOS[recompute, False])
    found = [
        Choices(
            token_budget=budget,
            recompute=recompute,
            optimizer=optimizer,
            low_bit_base=low_bit,
            strategy=strategy,
            gpus=gpus,
        )
        for strategy, gpus in layouts
        for optimizer in optimizers
        for low_bit in low_bits
        for recompute in recomputes
        for budget in budgets
        if strategy != "fsdp2" or not (low_bit or optimizer == "adamw_8bit")
    ]
    return [configured, *(choice for choice in found if choice != configured)]


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

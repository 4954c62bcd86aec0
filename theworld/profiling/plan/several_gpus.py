"""Memory of one of several GPUs: arithmetic on what one device was found to need.

DDP keeps a second copy of the gradients, in the buckets that it sends. FSDP2 (`training/parallel/sharding.py`) divides
weights, gradients and optimizer state of what trains, and gathers a unit at a time in bfloat16: two decoder layers, and
everything else as one unit that stays gathered from the forward to the end of the backward pass. There its gradients
lie in bfloat16, and in float32 for the sum over devices.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.profiling.plan.live_memory import WORKING, Peak
from theworld.profiling.plan.training_step import GRADIENTS, OPTIMIZER, StepMemory

_GATHERED, _SUMMED = "gathered weights", "gradients on their way"
_GATHER_BYTES, _SUM_BYTES = 2, 4


@dataclass(frozen=True, kw_only=True)
class DividedSizes:
    """Numbers of parameters.

    Attributes:
        layer: One decoder layer's that are divided.
        rest: All others that are divided.
        trained: That train now.
    """

    layer: int
    rest: int
    layers: int
    trained: int

    @classmethod
    def of(cls, model: TheWorld, *, divided: Collection[str], trained: Collection[str]) -> DividedSizes:
        """Those of a model whose groups `divided` are divided, of which `trained` train now."""
        groups = {group: sum(p.numel() for _, p in named) for group, named in parameter_groups(model).items()}
        layers = model.gemma.model.language_model.layers
        layer = sum(p.numel() for p in layers[0].parameters()) if "language" in divided else 0
        everything = sum(groups[group] for group in divided)
        return cls(
            layer=layer,
            rest=everything - layer * len(layers),
            layers=len(layers),
            trained=sum(groups[group] for group in trained),
        )

    @property
    def divided(self) -> int:
        """All that are divided."""
        return self.rest + self.layers * self.layer


def with_ddp(memory: StepMemory) -> StepMemory:
    """One device's memory with DDP's buckets."""
    peaks = {}
    for phase, peak in memory.peaks.items():
        buckets = memory.gradient_bytes
        peaks[phase] = Peak(peak.bytes + buckets, peak.categories | {"gradients: buckets of DDP": buckets}, phase)
    return StepMemory(peaks, memory.between_steps, memory.gradient_bytes)


def with_fsdp2(memory: StepMemory, sizes: DividedSizes, *, gpus: int, masters: bool, frozen_bytes: int) -> StepMemory:
    """One of `gpus` devices' memory.

    Args:
        memory: Of one device whose weights are all bfloat16, as gathered ones are.
        sizes: Of the model.
        gpus: How many share it.
        masters: float32 weights and moments, else bfloat16.
        frozen_bytes: Weights that are whole on every device.
    """
    width = 4 if masters else 2
    kept = {
        "weights: divided": -(-sizes.divided * width // gpus),
        "weights: whole on every GPU": frozen_bytes,
        GRADIENTS: -(-sizes.trained * width // gpus),
        OPTIMIZER: -(-2 * sizes.trained * width // gpus),
    }
    gathered = _GATHER_BYTES * (sizes.rest + 2 * sizes.layer)
    layer_sum = (_GATHER_BYTES + _SUM_BYTES) * sizes.layer
    rest_sum = (_GATHER_BYTES + _SUM_BYTES + _SUM_BYTES // gpus) * sizes.rest
    beside = {
        "forward": {_GATHERED: gathered} | _activations(memory.peaks["forward"]),
        "backward": {_GATHERED: gathered, _SUMMED: layer_sum} | _activations(memory.peaks["backward"]),
        "end of backward": {_GATHERED: gathered, _SUMMED: rest_sum},
    }
    peaks = {
        phase: Peak(sum((kept | more).values()), dict(sorted((kept | more).items(), key=lambda one: -one[1])), phase)
        for phase, more in beside.items()
    }
    return StepMemory(peaks, sum(kept.values()) - kept[GRADIENTS], kept[GRADIENTS])


def _activations(peak: Peak) -> dict[str, int]:
    """What a peak has besides weights, gradients and optimizer state; gradients of whole weights are no more."""
    ours = {name: size for name, size in peak.categories.items() if not name.startswith("weights")}
    return {name: size for name, size in ours.items() if name not in (GRADIENTS, OPTIMIZER)} | {
        WORKING: ours.get(WORKING, 0)
    }

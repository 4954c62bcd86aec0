"""What one stage of a run will take: the most memory and what it is made of, the work of a step, and its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch._subclasses.fake_tensor import FakeTensorMode

from theworld.models.configuration import TheWorldConfig
from theworld.models.flops import elementwise_bytes, geometry_of, useful_flops
from theworld.models.live_rows import with_live_rows
from theworld.models.parameter_groups import parameter_groups
from theworld.models.towers import Precision
from theworld.profiling.plan import calibration
from theworld.profiling.plan.choices import Choices
from theworld.profiling.plan.compiled_layers import MemoryOnly
from theworld.profiling.plan.live_memory import LiveMemory, Peak
from theworld.profiling.plan.several_gpus import DividedSizes, with_ddp, with_fsdp2
from theworld.profiling.plan.training_step import StepMemory, StepSettings, track_steps
from theworld.profiling.plan.typical_row import CachedTowers, SampleLength, packed_row
from theworld.profiling.plan.weightless import set_weightless_model
from theworld.training.cards import Card
from theworld.training.module import TheWorldModule
from theworld.training.stages import Schedule, Stage
from theworld.types import Batch

BLOCKS = "allocator's blocks beyond tensors (calibrated)"
CUBLAS = "cuBLAS workspaces (calibrated)"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a config says that is not searched.

    Attributes:
        module: With its settings, without a model.
        config: Shape of the model.
        samples_of: The samples of the fullest row of so many tokens.
        cached: Towers whose features come from a cache while they are frozen.
        precision: By Lightning's name.
        micro_batches: Packed rows of an optimizer step, over all GPUs.
        clip: `trainer.gradient_clip_val`.
        shard_frozen: FSDP2 divides also what no stage trains.
    """

    module: TheWorldModule
    config: TheWorldConfig
    samples_of: Callable[[int], tuple[SampleLength, ...]]
    cached: CachedTowers = CachedTowers()
    precision: Precision = "bf16-mixed"
    micro_batches: int = 1
    clip: float | None = None
    shard_frozen: bool = False

    def row(self, stage: Stage, token_budget: int) -> Batch:
        """The row of a micro-batch, with the rows that its last layers compute."""
        trained = stage.learning_rates.trained()
        future = self.config.enable_world and (self.config.num_world_steps or self.config.world_latent_shape)
        cached = CachedTowers(
            self.cached.image_features and "vision" not in trained,
            bool(future) or (self.cached.world_latents and "world_encoder" not in trained),
        )
        batch = packed_row(self.config, self.samples_of(token_budget), token_budget=token_budget, cached=cached)
        return with_live_rows(batch, self.config)


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Memory of one GPU in one stage.

    Attributes:
        choices: How it runs.
        peak: The most of tensors, with all categories.
        phase_bytes: The most of each phase, tensors alone.
        between_steps_bytes: Alive between two steps, gradients not counted.
        allocated_bytes: Predicted `torch.cuda.max_memory_allocated`.
        needed_bytes: Memory that a card must have.
    """

    choices: Choices
    peak: Peak
    phase_bytes: dict[str, int]
    between_steps_bytes: int
    allocated_bytes: int
    needed_bytes: int

    @property
    def breakdown(self) -> dict[str, int]:
        """Bytes of everything that is allocated at the peak; sums to `allocated_bytes`."""
        tensors = self.peak.bytes
        beside = {BLOCKS: calibration.blocks_bytes(tensors), CUBLAS: calibration.CUBLAS_BYTES}
        return self.peak.categories | beside


@dataclass(frozen=True, kw_only=True)
class StageWork:
    """What one optimizer step of a stage computes, over all GPUs.

    Attributes:
        flops: Useful floating-point operations (`theworld.models.flops`).
        tokens: Tokens that are not padding.
        floor_seconds: Least time on the card; None without a card.
        expected_seconds: Floor × the calibrated ratio.
        steps: Optimizer steps of the stage.
    """

    flops: int
    tokens: int
    floor_seconds: float | None
    expected_seconds: float | None
    steps: int

    @property
    def expected_hours(self) -> float | None:
        """Of the whole stage."""
        return None if self.expected_seconds is None else self.expected_seconds * self.steps / 3600


@dataclass
class Planner:
    """Plans stages; what it compiled for one is used again for the next."""

    mode: FakeTensorMode = field(default_factory=lambda: FakeTensorMode(allow_non_fake_inputs=True))
    _backend: MemoryOnly | None = None
    _known: dict[tuple[str, Choices], StageMemory] = field(default_factory=dict)

    def memory(self, run: Run, name: str, choices: Choices) -> StageMemory:
        """Memory of one GPU in the stage `name`, run by `choices`."""
        if (name, choices) not in self._known:
            found = self._simulated(run, name, choices)
            allocated = calibration.allocated_bytes(found.peak.bytes)
            self._known[name, choices] = StageMemory(
                choices=choices,
                peak=found.peak,
                phase_bytes={phase: peak.bytes for phase, peak in found.peaks.items()},
                between_steps_bytes=found.between_steps,
                allocated_bytes=allocated,
                needed_bytes=calibration.needed_bytes(allocated, gpus=choices.gpus),
            )
        return self._known[name, choices]

    def forget_answers(self) -> None:
        """Before another run is planned; what is compiled is kept."""
        self._known.clear()

    def _simulated(self, run: Run, name: str, choices: Choices) -> StepMemory:
        self._backend = self._backend or MemoryOnly(self.mode)
        module = choices.apply(run.module)
        stage = dict(zip(module.schedule.names, module.schedule.stages, strict=True))[name]
        divides = choices.strategy == "fsdp2"
        model = set_weightless_model(module, run.config, self.mode, masters=not divides)
        accumulate = max(1, run.micro_batches // choices.gpus)
        settings = StepSettings(precision=run.precision, accumulate=accumulate, clip=run.clip)
        memory = LiveMemory()
        with self._backend.counting(memory):
            found = track_steps(
                module,
                stage,
                run.row(stage, choices.token_budget),
                memory,
                settings,
                trained_before=_trained_before(module.schedule, name),
            )
        if choices.strategy == "ddp" and choices.gpus > 1:
            return with_ddp(found)
        if not divides:
            return found
        groups = parameter_groups(model)
        divided = tuple(groups) if run.shard_frozen else module.schedule.groups
        whole = [p for group, named in groups.items() if group not in divided for _, p in named]
        return with_fsdp2(
            found,
            DividedSizes.of(model, divided=divided, trained=stage.learning_rates.trained()),
            gpus=choices.gpus,
            masters=choices.optimizer == "adamw",
            frozen_bytes=sum(p.nbytes for p in whole),
        )


def _trained_before(schedule: Schedule, name: str) -> set[str]:
    earlier = schedule.stages[: schedule.names.index(name)]
    return {group for stage in earlier for group in stage.learning_rates.trained()}


def stage_work(run: Run, stage: Stage, choices: Choices, card: Card | None) -> StageWork:
    """The work of one optimizer step, in which every row is the fullest."""
    geometry = geometry_of(run.row(stage, choices.token_budget))
    trained = stage.learning_rates.trained()
    rows = max(run.micro_batches, choices.gpus)
    flops = useful_flops(run.config, geometry, trained).total
    floor = expected = None
    if card is not None:
        one = card.floor_seconds(flops=flops, bytes=elementwise_bytes(run.config, geometry, trained))
        floor = one * rows / choices.gpus
        backend = run.module.attention_backend
        expected = floor * calibration.expected_ratio(choices.recompute, low_bit=choices.low_bit_base, backend=backend)
    return StageWork(
        flops=flops * rows,
        tokens=sum(geometry.document_lengths) * rows,
        floor_seconds=floor,
        expected_seconds=expected,
        steps=stage.max_steps,
    )

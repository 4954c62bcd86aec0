"""What is predicted and then measured: runs at true dimensions, those of the same shapes one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from theworld.assets import TINY_BASE
from theworld.models.configuration import TheWorldConfig
from theworld.profiling.plan.choices import Choices
from theworld.profiling.plan.prediction import Run
from theworld.profiling.plan.typical_row import CachedTowers, SampleLength, placeholder_tokens
from theworld.training.module import TheWorldModule
from theworld.training.stages import LearningRates, Stage

STAGE = "stage"
TEXT, TARGETS = 722, 360
"""Text and target tokens of a sample of `experiments/speed`: with 512² frames 5,076 tokens, without a world 725."""

GEMMA_TOKENS = 725


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One run.

    Attributes:
        rates: Learning rate of each group that trains.
        recompute: Of `Stage`.
        optimizer: Of the module.
        low_bit: The language model in 8 bits.
        cached: Both towers' features are cached.
        samples: Samples of a row.
        tokens: Of a sample; None for text as in `experiments/speed`.
        image_size: Side of the world frame in pixels; 0 without a world branch.
        accumulate: Micro-batches of a step.
        cap_gb: The memory of the card that it is run in, if not all.
        fits: Whether it is planned to run within `cap_gb`.
    """

    rates: dict[str, float] = field(default_factory=lambda: {"world_projector": 1e-4})
    recompute: str = "none"
    optimizer: str = "adamw"
    low_bit: bool = False
    cached: bool = False
    samples: int = 2
    tokens: int | None = None
    image_size: int = 512
    accumulate: int = 1
    cap_gb: float | None = None
    fits: bool = True

    def model_config(self, *, tiny: bool) -> TheWorldConfig:
        """Shape of the model."""
        size = self.image_size if not tiny else 64 if self.image_size else 0
        world = {"world_image_size": size} if size else {"enable_world": False}
        return TheWorldConfig.preset("tiny" if tiny else "gemma3-4b", **world)

    def sample_lengths(self, config: TheWorldConfig, *, tiny: bool) -> tuple[SampleLength, ...]:
        """The samples of its row."""
        text, targets = (20, 8) if tiny else (TEXT, TARGETS)
        tokens = self.tokens if self.tokens and not tiny else placeholder_tokens(config) + text
        if not self.image_size and not tiny:
            tokens = GEMMA_TOKENS
        if self.tokens and not tiny:
            targets = round((tokens - placeholder_tokens(config)) / 2)
        return (SampleLength(tokens, targets),) * self.samples

    def choices(self, config: TheWorldConfig, *, tiny: bool) -> Choices:
        """As `theworld plan` has them."""
        return Choices(
            token_budget=sum(sample.tokens for sample in self.sample_lengths(config, tiny=tiny)),
            recompute=self.recompute,
            optimizer=self.optimizer,
            low_bit_base=self.low_bit,
        )

    def module(self, steps: int, *, tiny: bool) -> TheWorldModule:
        """Its module, without a model."""
        stage = Stage(learning_rates=LearningRates(**self.rates), max_steps=steps, recompute=self.recompute)
        return TheWorldModule(
            base=TINY_BASE,
            stages={STAGE: stage},
            enable_world=self.image_size > 0,
            attention_backend="sdpa" if tiny else "flash",
            compile_layers=not tiny,
            optimizer=self.optimizer,
            low_bit_base=self.low_bit,
            dtype="bfloat16",
        )

    def run(self, *, tiny: bool) -> Run:
        """As `theworld plan` has it."""
        config = self.model_config(tiny=tiny)
        lengths = self.sample_lengths(config, tiny=tiny)
        return Run(
            module=self.module(1, tiny=tiny),
            config=config,
            samples_of=lambda _: lengths,
            cached=CachedTowers(self.cached, self.cached),
            micro_batches=self.accumulate,
        )


VISION = {"world_projector": 1e-4, "vision": 1e-5}
LANGUAGE = {"world_projector": 1e-5, "language": 1e-5}
ALL = {"world_projector": 1e-5, "vision": 1e-5, "language": 1e-5}
GEMMA = {"vision": 1e-5, "language": 1e-5}
CONFIGURATIONS = {
    "projection": Configuration(),
    "projection_cached": Configuration(cached=True),
    "projection_full": Configuration(recompute="full"),
    "projection_selective": Configuration(recompute="selective"),
    "vision": Configuration(rates=VISION),
    "vision_full_accumulated": Configuration(rates=VISION, recompute="full", accumulate=2),
    "projection_one_sample": Configuration(samples=1),
    "projection_224": Configuration(image_size=224),
    "language_bf16": Configuration(rates=LANGUAGE, cached=True, optimizer="adamw_bf16"),
    "language_8bit": Configuration(rates=LANGUAGE, cached=True, optimizer="adamw_8bit"),
    "language_masters_full": Configuration(rates=LANGUAGE, cached=True, recompute="full"),
    "all_bf16_full": Configuration(rates=ALL, optimizer="adamw_bf16", recompute="full"),
    "card_24": Configuration(samples=1, tokens=6144, recompute="selective", cap_gb=24),
    "card_16": Configuration(samples=3, tokens=4778, recompute="full", cap_gb=16),
    "card_24_refused": Configuration(samples=3, tokens=4778, cap_gb=24, fits=False),
    "low_bit_full": Configuration(recompute="full", low_bit=True, cached=True),
    "gemma_bf16": Configuration(rates=GEMMA, image_size=0, optimizer="adamw_bf16"),
}
"""In the order in which they are run: an 8-bit base cannot be undone, and Gemma alone is another model."""


def chosen(names: Sequence[str] | None) -> dict[str, Configuration]:
    """Those of `names` in their own order, or all."""
    return {name: one for name, one in CONFIGURATIONS.items() if not names or name in names}

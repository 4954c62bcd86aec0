"""A module over the tiny real parts, with its weights or without them, and its row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.tiny import gemma_config, tiny_config
from theworld.models.configuration import TheWorldConfig
from theworld.models.live_rows import with_live_rows
from theworld.profiling.plan.live_memory import LiveMemory
from theworld.profiling.plan.training_step import StepMemory, StepSettings, track_steps
from theworld.profiling.plan.typical_row import CachedTowers, SampleLength, packed_row
from theworld.profiling.plan.weightless import of_shape, set_weightless_model
from theworld.training.module import TheWorldModule
from theworld.training.optimizers import prepare_weights
from theworld.training.stages import LearningRates, Stage
from theworld.types import Batch

ALL = {"world_projector": 1e-3, "vision": 1e-3, "language": 1e-3}


def config_of() -> TheWorldConfig:
    """Two layers, so that all of it takes a second."""
    gemma = gemma_config(vocab_size=256, num_hidden_layers=2)
    gemma.vision_config.num_hidden_layers = 1
    return tiny_config(gemma_config=gemma)


def module_of(rates: dict[str, float], *, recompute: str = "none", dtype: str = "float32", **settings):
    stage = Stage(learning_rates=LearningRates(**rates), max_steps=3, recompute=recompute)
    return TheWorldModule(base="theworld-tiny", stages={"stage": stage}, dtype=dtype, **settings)


def row_of(config: TheWorldConfig, lengths: Sequence[int] = (40, 60)) -> Batch:
    samples = [SampleLength(length, 10) for length in lengths]
    return with_live_rows(packed_row(config, samples, token_budget=sum(lengths) + 4, cached=CachedTowers()), config)


def with_weights(module: TheWorldModule, config: TheWorldConfig) -> TheWorldModule:
    torch.manual_seed(0)
    model = of_shape(config, module.load_dtype)
    prepare_weights(module.optimizer_choice, model, module.schedule.groups)
    model.attention_backend = module.attention_backend
    module.model = model.train()
    return module


def without_weights(module: TheWorldModule, config: TheWorldConfig) -> TheWorldModule:
    set_weightless_model(module, config, FakeTensorMode(allow_non_fake_inputs=True))
    return module


def tracked(
    module: TheWorldModule, batch: Batch, *, memory: LiveMemory | None = None, precision: str = "32-true", **more
) -> StepMemory:
    settings = StepSettings(precision=precision, fused=False, **more)
    memory = memory or LiveMemory(block_bytes=1)
    return track_steps(module, module.schedule.stages[0], batch, memory, settings)

"""What a run computes: which towers read a cache, and what each of several GPUs does of a step."""

from __future__ import annotations

import pytest

from tests.profiling.plan.steps import config_of, module_of
from theworld.profiling.plan.choices import Choices
from theworld.profiling.plan.prediction import Run, stage_work
from theworld.profiling.plan.typical_row import CachedTowers, SampleLength
from theworld.training.cards import card_named


def run_of(rates: dict[str, float]) -> Run:
    return Run(
        module=module_of(rates),
        config=config_of(),
        samples_of=lambda _: (SampleLength(40, 10),) * 2,
        cached=CachedTowers(True, True),
        micro_batches=8,
    )


@pytest.mark.parametrize(("rates", "images"), [({"world_projector": 1e-3}, 0), ({"vision": 1e-3}, 2)])
def test_a_tower_that_trains_reads_no_cache(rates, images) -> None:
    run = run_of(rates)
    row = run.row(run.module.schedule.stages[0], 96)
    assert len(row.pixel_values) == images
    assert len(row.world_pixel_values) == 0


def test_two_gpus_take_half_the_time_for_the_same_work() -> None:
    run, card = run_of({"world_projector": 1e-3}), card_named("NVIDIA H200")
    work = {
        gpus: stage_work(
            run,
            run.module.schedule.stages[0],
            Choices(token_budget=96, recompute="none", optimizer="adamw", low_bit_base=False, gpus=gpus),
            card,
        )
        for gpus in (1, 2)
    }
    assert work[1].flops == work[2].flops
    assert work[1].tokens == work[2].tokens == 8 * 80
    assert work[1].floor_seconds == pytest.approx(2 * work[2].floor_seconds)

"""Stages are pure functions of the step: every learning rate of a small schedule is spelled out."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from theworld.models.parameter_groups import GROUPS
from theworld.training.stages import LearningRates, Schedule, Stage


def test_a_group_is_untouched_until_the_first_stage_that_trains_it():
    stages = {
        "a": Stage(learning_rates=LearningRates(world_projector=1.0), max_steps=3),
        "b": Stage(learning_rates=LearningRates(vision=1.0), max_steps=4),
        "c": Stage(learning_rates=LearningRates(world_projector=1.0), max_steps=5),
    }
    until = {group: Schedule(stages).untouched_until(group) for group in ("world_projector", "vision", "world_encoder")}
    assert until == {"world_projector": 0, "vision": 3, "world_encoder": 12}


def test_a_stage_can_give_every_group_a_rate():
    every = LearningRates(**dict.fromkeys(GROUPS, 1.0))
    assert tuple(every.trained()) == GROUPS
    assert [field.name for field in fields(LearningRates)] == list(GROUPS)


def three_stages() -> Schedule:
    """Projector; then projector and vision with two steps of warmup; then projector and language."""
    return Schedule(
        {
            "projection": Stage(learning_rates=LearningRates(world_projector=1.0), max_steps=4, min_lr_ratio=0.0),
            "vision": Stage(learning_rates=LearningRates(world_projector=0.5, vision=0.1), max_steps=4, warmup_steps=2),
            "language": Stage(
                learning_rates=LearningRates(world_projector=0.2, language=0.01), max_steps=2, warmup_steps=1
            ),
        }
    )


def test_boundaries_names_and_groups():
    schedule = three_stages()
    assert schedule.boundaries == (4, 8, 10)
    assert schedule.total_steps == 10
    assert [schedule.name(step) for step in range(11)] == ["projection"] * 4 + ["vision"] * 4 + ["language"] * 3
    assert [schedule.finished(step) for step in (3, 4, 5, 8, 10, 11)] == [
        None,
        "projection",
        None,
        "vision",
        "language",
        None,
    ]
    assert schedule.groups == ("world_projector", "vision", "language")


def test_every_learning_rate():
    schedule = three_stages()
    half = 0.5 * (1 + math.cos(math.pi / 4))
    rates = {group: [schedule.learning_rate(group, step) for step in range(10)] for group in schedule.groups}
    # Stage 1: new, but without warmup; cosine from 1 to 0 over four steps.
    assert rates["world_projector"][:4] == pytest.approx([1.0, half, 0.5, 1 - half])
    # Stage 2: carried over, so no warmup; cosine from 0.5 to a tenth of it.
    assert rates["world_projector"][4:8] == pytest.approx([0.5, 0.05 + 0.45 * half, 0.275, 0.05 + 0.45 * (1 - half)])
    assert rates["world_projector"][8:] == pytest.approx([0.2, 0.02 + 0.18 * 0.5])
    # Vision is new in stage 2: two steps of linear warmup, then its cosine over the other two; frozen in stage 3.
    assert rates["vision"] == pytest.approx([0, 0, 0, 0, 0.05, 0.1, 0.1, 0.055, 0, 0])
    # Language is new in stage 3: its only warmup step is already at the peak.
    assert rates["language"] == pytest.approx([0] * 8 + [0.01, 0.01])


def test_a_group_that_comes_back_is_warmed_up_again():
    on = Stage(learning_rates=LearningRates(vision=1.0), max_steps=4, warmup_steps=2)
    off = Stage(learning_rates=LearningRates(language=1.0), max_steps=4)
    schedule = Schedule({"first": on, "second": off, "third": on})
    assert schedule.learning_rate("vision", 8) == 0.5
    assert Schedule({"first": on, "second": on}).learning_rate("vision", 4) == 1.0  # control: carried over


def test_a_stage_cut_shorter_than_its_warmup_ends_below_the_peak():
    short = Schedule({"trial": Stage(learning_rates=LearningRates(vision=1.0), max_steps=2, warmup_steps=10)})
    assert [short.learning_rate("vision", step) for step in range(2)] == pytest.approx([0.1, 0.2])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LearningRates(vision=0.0), r"found learning rate 0\.0 for vision, expected > 0"),
        (lambda: LearningRates(language=math.nan), "found learning rate nan for language"),
        (lambda: Stage(learning_rates=LearningRates(), max_steps=1), "found no learning rate"),
        (lambda: Stage(learning_rates=LearningRates(vision=1.0), max_steps=0), "found max_steps=0"),
        (
            lambda: Stage(learning_rates=LearningRates(vision=1.0), max_steps=5, warmup_steps=-1),
            "found warmup_steps=-1, expected 0 or more",
        ),
        (
            lambda: Stage(learning_rates=LearningRates(vision=1.0), max_steps=5, min_lr_ratio=1.5),
            r"found min_lr_ratio=1\.5",
        ),
        (lambda: Schedule({}), "found no stages"),
        (
            lambda: Schedule({"a/b": Stage(learning_rates=LearningRates(vision=1.0), max_steps=1)}),
            "found stage name 'a/b'",
        ),
    ],
)
def test_a_bad_schedule_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()

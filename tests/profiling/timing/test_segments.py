"""How long a step is at each place, by a clock that we turn."""

from __future__ import annotations

import pytest
import torch

from theworld.profiling.places import Place
from theworld.profiling.timing import segments
from theworld.profiling.timing.segments import Seconds, StepClock, StepTime, mean_places, mean_seconds, middle

LAYER, NORM = Place("forward", "layer"), Place("forward", "norm")


def test_times_of_the_places_are_the_step(monkeypatch):
    """Read at 0 (the step begins), 1, 3, 6, 10 and 15 (it ends); the first second belongs to nobody."""
    readings = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr(segments.time, "perf_counter", lambda: next(readings))
    clock = StepClock(torch.device("cpu"))
    clock.begin()
    for place in (LAYER, NORM, LAYER, NORM):
        clock.notice(place)
    clock.end()
    (step,) = clock.steps()
    assert step == StepTime(15.0, {LAYER: Seconds(2.0 + 4.0, 2.0 + 4.0), NORM: Seconds(3.0 + 5.0, 3.0 + 5.0)})


def steps(*lengths: float) -> list[StepTime]:
    return [StepTime(length, {LAYER: Seconds(length - 1, 0.5), NORM: Seconds(1, 0.5)}) for length in lengths]


def test_a_quarter_at_each_end_does_not_count():
    assert [step.seconds for step in middle(steps(5, 100, 3, 4, 6, 2, 1, 7))] == [3, 4, 5, 6]
    assert [step.seconds for step in middle(steps(2, 9, 1))] == [1, 2, 9]  # too few to leave any out


def test_means_of_the_places_add_up_to_the_mean_step():
    found = steps(5, 100, 3, 4, 6, 2, 1, 7)
    places = mean_places(found)
    assert mean_seconds(found) == 4.5
    assert places == {LAYER: Seconds(3.5, 0.5), NORM: Seconds(1.0, 0.5)}
    assert sum(seconds.step for seconds in places.values()) == pytest.approx(mean_seconds(found))

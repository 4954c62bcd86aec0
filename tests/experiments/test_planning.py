"""Every configuration that is measured was predicted, and the table of both says which plans are wrong."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from experiments.planning.compare import compared, draw, markdown
from experiments.planning.configurations import CONFIGURATIONS
from theworld.profiling.plan.calibration import GB, GIB
from theworld.profiling.plan.choices import Choices
from theworld.profiling.plan.live_memory import Peak
from theworld.profiling.plan.prediction import StageMemory
from theworld.profiling.plan.search import least_needed_bytes

ROOT = Path(__file__).parents[2]
PREDICTED = json.loads((ROOT / "experiments/planning/predicted.json").read_text())


def measured(name: str, gib: float, **more: object) -> dict[str, object]:
    one = CONFIGURATIONS[name]
    numbers = {"allocated_gib": gib, "reserved_gib": gib + 1, "outside_gib": 0.5, "out_of_memory": False}
    return numbers | {"cap_gb": one.cap_gb, "planned_to_fit": one.fits} | more


def result(**found: dict[str, object]) -> dict[str, object]:
    return {"card": "a card", "torch": "2", "transformers": "5", "configurations": found}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_is_predicted_as_it_is_now(name: str) -> None:
    one, found = CONFIGURATIONS[name], PREDICTED["configurations"][name]
    choices = one.choices(one.model_config(tiny=False), tiny=False)
    assert {key: found[key] for key in ("token_budget", "recompute", "optimizer", "low_bit_base")} == {
        "token_budget": choices.token_budget,
        "recompute": one.recompute,
        "optimizer": one.optimizer,
        "low_bit_base": one.low_bit,
    }
    assert sum(found["breakdown_gib"].values()) == pytest.approx(found["allocated_gib"])
    if one.cap_gb is not None:
        assert (found["needs_gb"] <= one.cap_gb) == one.fits


def test_samples_have_the_lengths_of_the_speed_experiments() -> None:
    tokens = {name: one.choices(one.model_config(tiny=False), tiny=False).token_budget for name, one in _all()}
    assert tokens["projection"] == 2 * 5076
    assert tokens["projection_224"] == 2 * (5076 - 4096 + 784)
    assert tokens["gemma_bf16"] == 2 * 725
    assert tokens["card_16"] == 3 * 4778


def test_the_table_says_how_far_off_a_plan_is(tmp_path: Path) -> None:
    planned = PREDICTED["configurations"]["projection"]["allocated_gib"]
    lines = compared(PREDICTED, result(projection=measured("projection", planned / 1.1)))
    assert lines[0]["error"] == pytest.approx(0.1)
    text = markdown(lines, result())
    assert "| +10.0% |" in text
    assert "0 of 1 plans are within 5%; the largest error is 10.0%." in text
    assert "Wrong about what fits: none." in text
    draw(lines, tmp_path / "picture.png", "a card")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_table_says_what_should_have_fitted() -> None:
    planned = PREDICTED["configurations"]["card_16"]["allocated_gib"]
    ran = result(
        card_16=measured("card_16", planned),
        card_24_refused=measured("card_24_refused", 0, out_of_memory=True),
    )
    text = markdown(compared(PREDICTED, ran), ran)
    assert "16 GB, planned 14.6 GB: ran, ran was planned" in text
    assert "| out of memory | – | – | 0.50 | 24 GB, planned 47.7 GB: refused, refused was planned |" in text
    assert "Wrong about what fits: none." in text
    other = result(
        card_16=measured("card_16", 0, out_of_memory=True), projection=measured("projection", PREDICTED_PROJECTION)
    )
    assert "Wrong about what fits: card_16." in markdown(compared(PREDICTED, other), other)


def _all() -> object:
    return CONFIGURATIONS.items()


PREDICTED_PROJECTION = PREDICTED["configurations"]["projection"]["allocated_gib"]


SAME_BUT_FOR_CHOICES = (
    ("projection", "projection_full", "projection_selective", "projection_one_sample"),
    ("projection_cached", "low_bit_full"),
    ("language_bf16", "language_8bit", "language_masters_full"),
    ("card_16", "card_24", "card_24_refused"),
)


def as_memory(found: dict[str, Any]) -> StageMemory:
    parts = {name: round(size * GIB) for name, size in found["breakdown_gib"].items() if "calibrated" not in name}
    return StageMemory(
        choices=Choices(**{field.name: found[field.name] for field in fields(Choices)}),
        peak=Peak(sum(parts.values()), parts, found["peak_phase"]),
        phase_bytes={},
        between_steps_bytes=0,
        allocated_bytes=round(found["allocated_gib"] * GIB),
        needed_bytes=round(found["needs_gb"] * GB),
    )


@pytest.mark.parametrize("names", SAME_BUT_FOR_CHOICES, ids=lambda names: names[0])
def test_a_search_leaves_nothing_out_that_fits(names: tuple[str, ...]) -> None:
    """At true dimensions, whichever way it begins with: the bound by which a way is not simulated is a lower one."""
    for known, other in permutations(names, 2):
        run, trains = CONFIGURATIONS[known].run(tiny=False), "language" in CONFIGURATIONS[known].rates
        found, true = (as_memory(PREDICTED["configurations"][name]) for name in (known, other))
        assert least_needed_bytes(found, true.choices, run, trains=trains) <= true.needed_bytes, (known, other)

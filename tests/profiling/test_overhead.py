"""A run that is not profiled pays nothing: nothing in it knows that profiles exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.profilers import PassThroughProfiler

from tests.tiny import QUIET_TRAINER
from tests.training.conftest import DATA, MODEL, one_stage
from theworld.data.datamodule import OSDDataModule
from theworld.profiling.watch import Plan
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.module import TheWorldModule

ROOT = Path(__file__).parents[2] / "theworld"


def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def test_the_training_path_imports_no_profile():
    files = [path for room in ("training", "models", "data", "evaluation") for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 100
    assert not [path for path in files if any("theworld.profiling" in name for name in imported(path))]
    assert any("theworld.profiling" in name for name in imported(ROOT / "profiling_cli.py"))  # control


def test_a_run_that_is_not_profiled_has_no_hook_of_ours(base, osd, tmp_path):
    module = TheWorldModule(base=base, stages=one_stage(1, world_projector=1e-3), **MODEL)
    settings = QUIET_TRAINER | {"callbacks": [StageSchedule()], "default_root_dir": tmp_path, "max_epochs": -1}
    trainer = Trainer(**settings, limit_val_batches=0)
    trainer.fit(module, datamodule=OSDDataModule(base=base, **osd, **DATA))
    assert type(trainer.profiler) is PassThroughProfiler
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.world.modules())


def test_steps_of_a_plan():
    plan = Plan(warmup_steps=2, active_steps=2, traced_steps=1)
    kinds = ["warm-up", "warm-up", "plain", "placed", "plain", "placed", "traced", "traced", "recorded", "measured"]
    assert [plan.kind(step) for step in range(plan.total)] == kinds
    assert plan.kind(plan.total) == "over"
    for name in ("warmup_steps", "active_steps", "traced_steps"):
        with pytest.raises(ValueError, match=f"found profile.{name}=0, expected at least 1"):
            Plan(**{name: 0})

"""The tiny base and OSD files of the training tests; one profile, made once by the command."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import yaml

from tests.tiny import WORLD_SIDE
from tests.training.conftest import base, osd
from theworld.cli import main
from theworld.profiling.reports.schema import Report, read_report

__all__ = ["base", "osd"]

PLAN = {"warmup_steps": 2, "active_steps": 2, "traced_steps": 1}
STEPS = 10
"""Of that plan: 2 of warm-up, 2 and 2, one before the traced one, it, and two for memory."""


def config(base: str, osd: dict[str, str], output: Path) -> dict:
    """A run that trains everything but the world encoder, two micro-batches a step."""
    rates = {"world_projector": 1e-2, "vision": 1e-3, "language": 1e-3}
    quiet = {"enable_progress_bar": False, "logger": False}
    return {
        "trainer": {"accelerator": "cpu", "devices": 1, "accumulate_grad_batches": 2, "gradient_clip_val": 1.0} | quiet,
        "model": {
            "base": base,
            "world_image_size": WORLD_SIDE,
            "dtype": "float32",
            "stages": {"language": {"learning_rates": rates, "max_steps": 20}},
        },
        "data": osd | {"max_seq_length": 192, "token_budget": 256, "micro_batches_per_step": 2},
        "profile": PLAN | {"output": str(output)},
    }


@pytest.fixture(scope="session")
def profiled(base: str, osd: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a profile."""
    folder = tmp_path_factory.mktemp("profiled") / "tiny"
    file = folder.parent / "config.yaml"
    file.write_text(yaml.safe_dump(config(base, osd, folder)))
    with contextlib.redirect_stdout(io.StringIO()):
        main(["profile", f"--config={file}"])
    return folder


@pytest.fixture(scope="session")
def report(profiled: Path) -> Report:
    return read_report(profiled)

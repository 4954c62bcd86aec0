"""The plan of a run as plain data, for JSON and for the terminal; every number's key ends in its unit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import transformers

from theworld.profiling.plan import calibration
from theworld.profiling.plan.choices import Choices
from theworld.profiling.plan.prediction import StageMemory, StageWork
from theworld.profiling.plan.search import Fit
from theworld.profiling.plan.typical_row import SampleLength

GIB = calibration.GIB


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """One stage.

    Attributes:
        name: Of the stage.
        memory: As configured.
        work: As configured.
        parameters: Of each group, and of those that train.
        fits: For each size of memory that was asked for.
    """

    name: str
    memory: StageMemory
    work: StageWork
    parameters: dict[str, dict[str, int]]
    fits: tuple[Fit, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """All stages.

    Attributes:
        shape: Where the model's shape comes from.
        rows: Where the samples' lengths come from.
        samples: Of a row.
        world_tokens: Of a sample.
        card: Name, if one was given.
        stages: In order.
        notes: What to know besides.
    """

    shape: str
    rows: str
    samples: tuple[SampleLength, ...]
    world_tokens: int
    card: str | None
    stages: tuple[StageReport, ...]
    notes: tuple[str, ...] = ()


def as_data(report: RunReport) -> dict[str, Any]:
    """For JSON."""
    return {
        "shape": report.shape,
        "rows": report.rows,
        "sample_lengths_tokens": [sample.tokens for sample in report.samples],
        "sample_targets_tokens": [sample.targets for sample in report.samples],
        "world_tokens_per_sample": report.world_tokens,
        "card": report.card,
        "stages": {stage.name: _stage(stage) for stage in report.stages},
        "notes": list(report.notes),
        "calibration": {
            "measured_on": calibration.MEASURED_ON,
            "cublas_mib": calibration.CUBLAS_BYTES / calibration.MIB,
            "blocks_share": calibration.BLOCK_SHARE,
            "reserved_share": calibration.RESERVED_SHARE,
            "context_mib": calibration.CONTEXT_BYTES / calibration.MIB,
            "nccl_mib": calibration.NCCL_BYTES / calibration.MIB,
            "floor_ratios": {f"{mode}{', 8-bit base' if low else ''}": r for (mode, low), r in _RATIOS.items()},
        },
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


_RATIOS = calibration.FLOOR_RATIOS


def memory_data(memory: StageMemory) -> dict[str, Any]:
    """One way to run a stage."""
    return {
        **asdict(memory.choices),
        "allocated_gib": memory.allocated_bytes / GIB,
        "needs_gb": memory.needed_bytes / calibration.GB,
        "peak_phase": memory.peak.phase,
        "phase_tensors_gib": {name: size / GIB for name, size in memory.phase_bytes.items()},
        "between_steps_gib": memory.between_steps_bytes / GIB,
        "breakdown_gib": {name: size / GIB for name, size in memory.breakdown.items()},
    }


def _stage(stage: StageReport) -> dict[str, Any]:
    work = stage.work
    return {
        "as_configured": memory_data(stage.memory),
        "parameters": stage.parameters,
        "useful_tflop_per_step": work.flops / 1e12,
        "tokens_per_step": work.tokens,
        "steps": work.steps,
        "floor_seconds_per_step": work.floor_seconds,
        "expected_seconds_per_step": work.expected_seconds,
        "expected_hours": work.expected_hours,
        "cards": [
            {
                "memory_gb": fit.memory_gb,
                "recommended": None if fit.best is None else memory_data(fit.best),
                "flags": list(fit.flags),
                "simulated": [memory_data(memory) for memory in fit.simulated],
            }
            for fit in stage.fits
        ],
    }


def described(choices: Choices) -> str:
    """A way to run a stage in a few words."""
    words = [f"{choices.token_budget:,} tokens a row", f"recompute {choices.recompute}", choices.optimizer]
    if choices.low_bit_base:
        words.append("8-bit base")
    if choices.gpus > 1 or choices.strategy != "one device":
        words.append(f"{choices.strategy} on {choices.gpus} GPUs")
    return ", ".join(words)


def refusal(memory: StageMemory, name: str, fit: Fit) -> str:
    """Why a run as it is configured does not fit, and what to add."""
    fix = f"add {' '.join(fit.flags)}" if fit.best is not None else "no way to run it that is known here fits"
    return (
        f"found that stage {name!r} as configured needs {memory.needed_bytes / calibration.GB:.1f} GB on the card "
        f"({memory.allocated_bytes / GIB:.1f} GiB allocated), expected at most {fit.memory_gb:g} GB; {fix}"
    )

"""A report from what was measured."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch
import transformers

from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.profiling.memory.breakdown import breakdown, of_category, timeline
from theworld.profiling.reports.schema import (
    SCHEMA,
    Memory,
    OperationRow,
    ParameterRow,
    PlaceTime,
    Report,
    Time,
)
from theworld.profiling.timing.ceiling import measured_ceiling
from theworld.profiling.timing.operations import Operation
from theworld.profiling.timing.segments import mean_places, mean_seconds
from theworld.profiling.watch import Measurements
from theworld.training.callbacks.throughput import Counts
from theworld.training.cards import card_of

_OPERATIONS = 60
"""How many operations, and how many kernels, are kept."""


def make_report(
    found: Measurements,
    *,
    name: str,
    parameters: dict[str, ParameterRow],
    run: dict[str, str | int | list[str]],
    throughput: dict[str, float],
    losses: Sequence[float],
) -> Report:
    """Everything that was found, as plain numbers.

    Args:
        found: By the watch.
        name: Of the profile.
        parameters: Of each group.
        run: What was run, by setting.
        throughput: Rates.
        losses: Of every step.
    """
    return Report(
        schema=SCHEMA,
        name=name,
        machine=machine(),
        run=run,
        memory=_memory(found),
        parameters=parameters,
        time=_time(found),
        operations=_operations(found.operations),
        throughput=throughput,
        loss=list(losses),
    )


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    on_cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_cuda else f"CPU ({platform.machine()})",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    } | ({"cuda": str(torch.version.cuda)} if on_cuda else {})


def parameter_counts(model: TheWorld) -> dict[str, ParameterRow]:
    """Parameters of each group, and how many of them train now."""
    return {
        group: ParameterRow(
            parameters=sum(p.numel() for _, p in members),
            trainable_parameters=sum(p.numel() for _, p in members if p.requires_grad),
            bytes=sum(p.numel() * p.element_size() for _, p in members),
        )
        for group, members in parameter_groups(model).items()
    }


def throughput(counts: Counts, step_seconds: float, device: torch.device) -> dict[str, float]:
    """Rates over the steps without tools, and what is useful of them beside what the device can do.

    Args:
        counts: Of all those steps together.
        step_seconds: Length of one.
        device: Whose ceiling is measured now.
    """
    steps, ceiling = max(counts.steps, 1), measured_ceiling(device)
    rate = counts.flops / steps / step_seconds
    rates = {
        "timed_steps": counts.steps,
        "tokens_per_step": counts.tokens / steps,
        "target_tokens_per_step": counts.targets / steps,
        "samples_per_step": counts.samples / steps,
        "tokens_per_second": counts.tokens / steps / step_seconds,
        "samples_per_second": counts.samples / steps / step_seconds,
        "fill": counts.tokens / max(counts.capacity, 1),
        "useful_flops_per_step": counts.flops / steps,
        "useful_flops_per_second": rate,
        "measured_ceiling_flops_per_second": ceiling,
        "mfu_of_measured_ceiling": rate / ceiling,
    }
    card = card_of(device)
    return rates if card is None else rates | {"peak_flops_per_second": card.flops, "mfu_of_peak": rate / card.flops}


def _memory(found: Measurements) -> Memory:
    history, recorded = found.history, found.recorded
    assert history is not None, "the memory of a step was recorded"
    assert recorded is not None, "the memory of a step was recorded"
    rows, over_time = breakdown(history, recorded.allocated_peak), timeline(history)
    memory = Memory(
        start_allocated_bytes=sum(block.size for block in history.living(history.first - 1)),
        peak_allocated_bytes=recorded.allocated_peak,
        breakdown=[{"category": row.category, "part": row.part, "bytes": row.size} for row in rows],
        category_bytes=of_category(rows),
        breakdown_sum_bytes=sum(row.size for row in rows),
        timeline={"seconds": over_time.seconds, "bytes": over_time.sizes, "peak_seconds": over_time.peak_seconds},
    )
    if recorded.asked_peak is not None:
        memory["peak_asked_bytes"] = recorded.asked_peak
    if recorded.reserved_peak is not None:
        memory["peak_reserved_bytes"] = recorded.reserved_peak
    if found.plain_peaks is not None:
        memory["untouched_peak_allocated_bytes"], memory["untouched_peak_reserved_bytes"] = found.plain_peaks
    return memory


def _time(found: Measurements) -> Time:
    places: list[PlaceTime] = []
    for place, seconds in mean_places(found.placed).items():
        row = PlaceTime(phase=place.phase, part=place.part, seconds=seconds.step, host_seconds=seconds.host)
        if (work := found.work.get(place)) is not None:
            row["kernel_seconds"], row["launches"] = work.kernel_seconds, work.launches
            row["host_waits"] = work.waits
        places.append(row)
    step, total = mean_seconds(found.plain), sum(row["seconds"] for row in places)
    time = Time(
        step_seconds=step,
        step_seconds_each=[step.seconds for step in found.plain],
        placed_step_seconds=mean_seconds(found.placed),
        places=places,
        places_sum_seconds=total,
        places_over_step=total / step,
    )
    if found.work:
        works = found.work.values()
        time["idle_seconds"] = max(step - sum(work.kernel_seconds for work in works), 0.0)
        time["launches"] = sum(work.launches for work in works)
        time["host_waits"] = sum(work.waits for work in works)
    return time


def _operations(found: Sequence[Operation]) -> list[OperationRow]:
    kernels = [operation for operation in found if operation.is_kernel]
    others = [operation for operation in found if not operation.is_kernel]
    rows = []
    for operation in [*others[:_OPERATIONS], *kernels[:_OPERATIONS]]:
        row = OperationRow(
            name=operation.name,
            is_kernel=operation.is_kernel,
            calls=operation.calls,
            cpu_seconds=operation.cpu_seconds,
        )
        if kernels:
            row["cuda_seconds"] = operation.device_seconds
        rows.append(row)
    return rows

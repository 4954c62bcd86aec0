"""Operations and kernels by their time, as the profiler adds them up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from torch.autograd import DeviceType

from theworld.profiling.timing.trace import PREFIX

_OURS = (PREFIX, "ProfilerStep")


class Averaged(Protocol):
    """What is read of a row of `torch.profiler.profile.key_averages()`; microseconds."""

    key: str
    count: int
    self_cpu_time_total: float
    self_device_time_total: float
    device_type: DeviceType
    is_user_annotation: bool | None


@dataclass(frozen=True)
class Operation:
    """One operation of the host, or one kernel of the device, in one step.

    Attributes:
        name: As PyTorch, or the kernel's author, calls it.
        is_kernel: Whether it is a kernel.
        calls: How often.
        cpu_seconds: Of the host, without the operations inside.
        device_seconds: Of the kernels that it launched itself, or of the kernel.
    """

    name: str
    is_kernel: bool
    calls: float
    cpu_seconds: float
    device_seconds: float


def operations(averages: Iterable[Averaged], steps: int) -> list[Operation]:
    """The longest first: by the device's time, then by the host's."""
    found = [
        Operation(
            name=row.key,
            is_kernel=row.device_type != DeviceType.CPU,
            calls=row.count / steps,
            cpu_seconds=row.self_cpu_time_total / 1e6 / steps,
            device_seconds=row.self_device_time_total / 1e6 / steps,
        )
        for row in averages
        if not row.key.startswith(_OURS) and not _is_shadow(row)
    ]
    return sorted(found, key=lambda operation: (-operation.device_seconds, -operation.cpu_seconds))


def _is_shadow(row: Averaged) -> bool:
    """A range of the host as the device's timeline shows it, from its first kernel to its last: no kernel."""
    return bool(row.is_user_annotation) and row.device_type != DeviceType.CPU

"""Errors at the n-th call of one kind that a save makes of the file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from theworld.training.checkpoints.directory import HashedFile

CALLS: dict[str, tuple[object, str]] = {
    "open a file": (Path, "open"),
    "open a folder": (os, "open"),
    "mkdir": (Path, "mkdir"),
    "write": (HashedFile, "write"),
    "fsync": (os, "fsync"),
    "replace": (os, "replace"),
    "remove a folder": (os, "rmdir"),
    "remove a file": (os, "unlink"),
}
"""What a save calls: owner and name."""


class Killed(BaseException):
    """Stands for a SIGKILL: no `except Exception` of ours sees it, so nothing is tidied up."""


def disk_full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_once(patch: pytest.MonkeyPatch, call: str, number: int, error: Callable[[], BaseException]) -> list[int]:
    """Let call `number` of a kind raise; half of a write is done before.

    Returns:
        A list that grows by the number of the call that failed, once it did.
    """
    owner, name = CALLS[call]
    real = getattr(owner, name)
    made, failed = [0], []

    def failing(*arguments: object, **options: object) -> object:
        made[0] += 1
        if made[0] - 1 != number:
            return real(*arguments, **options)
        failed.append(number)
        if call == "write":
            file, content = arguments
            half = memoryview(content).cast("B")[: len(content) // 2]
            file.file.write(half)
            file.file.flush()
            file.error = error()
            raise file.error
        raise error()

    patch.setattr(owner, name, failing)
    return failed

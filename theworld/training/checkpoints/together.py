"""Reading and writing a checkpoint by all processes of a run, each its part. All succeed, or all fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from torch import distributed

from theworld.training.checkpoints.directory import Draft, draft_of, new_checkpoint, verify_checkpoint
from theworld.training.checkpoints.plugin import BESIDES_TENSORS, check_space, read_content, tensor_bytes, write_content
from theworld.training.checkpoints.shards import put_back, stored_tensors, take_divided, write_rows

T = TypeVar("T")


def save_together(checkpoint: Mapping[str, object], path: Path) -> None:
    """Write `checkpoint` as the directory `path`, which all processes see. To be called by all of them.

    Raises:
        ValueError: There is not enough space on the disk.
        RuntimeError: It failed in another process. Nothing is left at `path`, or what was there before.
    """
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    plain, divided = take_divided(checkpoint)
    needed = tensor_bytes(plain) + sum(t.numel() * t.element_size() for t in divided.values()) + BESIDES_TENSORS

    with ExitStack() as stack:

        def begin() -> Draft | None:
            if rank:
                return None
            check_space(path, needed)
            return stack.enter_context(new_checkpoint(path))

        def write() -> dict[str, dict[str, object]]:
            own = Draft(draft_of(path))
            write_rows(own, divided, rank=rank, world_size=world_size)
            if rank == 0:
                write_content(own, plain)
            return own.files

        begun = _on_all(begin)
        of_processes: list[dict[str, dict[str, object]]] = [{}] * world_size
        distributed.all_gather_object(of_processes, _on_all(write))
        if begun is not None:
            for files in of_processes:
                begun.files.update(files)
        _on_all(stack.close)


def load_together(path: Path) -> dict[str, object]:
    """Verify the directory `path`, each process a share of its files, and read it.

    Returns:
        What `save_together` or an ordinary strategy saved. Divided tensors are `StoredTensor`, others lie on the CPU,
        in memory that is read from the file as it is needed.

    Raises:
        FileNotFoundError, ValueError: As `CheckpointDirectories.load_checkpoint`.
        RuntimeError: Another process found something wrong.
    """
    share = distributed.get_rank(), distributed.get_world_size()

    def verify() -> None:
        if path.is_dir():
            verify_checkpoint(path, share=share)

    _on_all(verify)
    content = _on_all(lambda: read_content(path, mmap=True))
    stored = stored_tensors(path) if path.is_dir() else {}
    return put_back(content, stored.__getitem__)


def _on_all(action: Callable[[], T]) -> T:
    """What `action` gives here; an error in one process is an error in all."""
    failure: Exception | None = None
    try:
        result = action()
    except Exception as error:
        failure = error
    failures: list[str | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(failures, None if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    for rank, message in enumerate(failures):
        if message is not None:
            raise RuntimeError(f"process {rank} failed: {message}")
    return result

"""Saves in the background: the training thread copies the tensors to the host's memory, another thread writes them.

Lightning's AsyncCheckpointIO clones on the device (12 bytes a parameter more on the card), lets any number of saves
pile up, tells of an error at the next save, and has no place for what must wait until a save is complete: LATEST, the
link to the last one, the removal of older ones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.serialization import MAP_LOCATION

_Kind = tuple[int, bool]
"""Bytes of a piece of the host's memory, and whether it is page-locked."""


class BackgroundSaves(CheckpointIO):
    """Another plugin whose saves go on in one thread of their own, one at a time, in the order in which they came.

    A save that comes while one is under way waits for it, and says for how long. What follows a save (`then`) is done
    in the same thread, and only if the save succeeded. An error is raised by whatever is called next on the training
    thread: `check`, `wait`, or a save.

    Args:
        inner: What writes and reads.
    """

    def __init__(self, inner: CheckpointIO):
        self.inner = inner
        self._memory = HostMemory()
        self._executor: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None  # of what was begun and not yet looked at; it fails if one before did
        self._path: Path | None = None

    def save_checkpoint(
        self, checkpoint: Mapping[str, object], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Copy `checkpoint` and begin to write it to `path`.

        Raises:
            Exception: That of the save before, if it failed and nobody was told yet.
        """
        self._wait_for_the_one_before(Path(path))
        copied = self._memory.copy(checkpoint)
        self._path = Path(path)
        self._last = self._thread().submit(self.inner.save_checkpoint, copied, path, storage_options)

    def reserve(self, checkpoint: Mapping[str, object]) -> None:
        """Allocate the host's memory for such a checkpoint in the background, so that its first save need not."""
        kinds = self._memory.kinds(checkpoint)
        self.then(lambda: self._memory.reserve(kinds))

    def then(self, action: Callable[[], None]) -> None:
        """Do `action` when all that was begun is complete; never, if any of it fails."""
        before = self._last

        def follow() -> None:
            if before is not None:
                before.result()
            action()

        self._last = self._thread().submit(follow)

    def load_checkpoint(
        self, path: str | Path, map_location: MAP_LOCATION = "cpu", weights_only: bool | None = True
    ) -> dict[str, object]:
        """Read `path`, after what is being written."""
        self.wait()
        return self.inner.load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove `path` when all that was begun is complete."""
        self.then(lambda: self.inner.remove_checkpoint(path))

    def writes(self, path: str | Path) -> bool:
        """Whether `path` is being written now."""
        return self._last is not None and not self._last.done() and self._path == Path(path)

    def check(self) -> None:
        """Raise the error of a save that failed; wait for nothing."""
        if self._last is not None and self._last.done():
            self.wait()

    def wait(self) -> None:
        """Wait until all that was begun is complete, and raise its error."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def teardown(self) -> None:
        """Wait, and give thread and memory back."""
        try:
            self.wait()
        finally:
            if self._executor is not None:
                self._executor.shutdown()
                self._executor = None
            self._memory = HostMemory()
            self.inner.teardown()

    def _wait_for_the_one_before(self, path: Path) -> None:
        """There is host memory for one, and a second that writes would slow the first one down."""
        if self._last is None or self._last.done():
            self.check()
            return
        before, start = self._path, time.perf_counter()
        self.wait()
        seconds = time.perf_counter() - start
        rank_zero_info(f"Waited {seconds:.1f} s for {before} to be written before {path}: saves come too often for it")

    def _thread(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        return self._executor


class HostMemory:
    """Copies of tensors in memory that is used again for the next copy; page-locked where they come from a GPU.

    To lock pages takes longer than to copy (0.7 s a GB on the host of an H200), so memory can be reserved. A copy is
    good until the next one is made.
    """

    def __init__(self) -> None:
        self._idle: dict[_Kind, list[Tensor]] = {}
        self._used: dict[_Kind, list[Tensor]] = {}
        self._copies: dict[tuple[torch.device, int], Tensor] = {}  # by where the memory was

    @staticmethod
    def kinds(value: Mapping[str, object]) -> list[_Kind]:
        """What a copy of `value` needs, once for tensors that share memory."""
        found: dict[tuple[torch.device, int], _Kind] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            found[storage.device, storage.data_ptr()] = (storage.nbytes(), storage.device.type == "cuda")
            return tensor

        apply_to_collection(value, Tensor, note)
        return list(found.values())

    def reserve(self, kinds: list[_Kind]) -> None:
        """Allocate what of `kinds` the last copy did not need; overwrites nothing."""
        for kind, needed in Counter(kinds).items():
            there = self._used.setdefault(kind, [])
            there += [_allocate(kind) for _ in range(needed - len(there))]

    def copy(self, value: Mapping[str, object]) -> Mapping[str, object]:
        """`value` with all its containers and tensors copied; tensors that shared memory share it again."""
        self._idle, self._used, self._copies = self._used, {}, {}
        copied = apply_to_collection(value, Tensor, self._copy)
        for device in {device for device, _ in self._copies if device.type == "cuda"}:
            torch.cuda.current_stream(device).synchronize()
        self._idle, self._copies = {}, {}
        return copied

    def _copy(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        place = (storage.device, storage.data_ptr())
        host = self._copies.get(place)
        if host is None:
            host = self._bytes(storage.nbytes(), page_locked=storage.device.type == "cuda")
            source = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            host.copy_(source, non_blocking=True)
            self._copies[place] = host
        empty = torch.empty(0, dtype=tensor.dtype)
        return empty.set_(host.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())

    def _bytes(self, size: int, *, page_locked: bool) -> Tensor:
        kind = (size, page_locked)
        idle = self._idle.get(kind)
        host = idle.pop() if idle else _allocate(kind)
        self._used.setdefault(kind, []).append(host)
        return host


def _allocate(kind: _Kind) -> Tensor:
    size, page_locked = kind
    return torch.empty(size, dtype=torch.uint8, pin_memory=page_locked)

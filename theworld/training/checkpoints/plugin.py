"""Lightning's plugin that reads and writes checkpoints: directories with a manifest instead of single files."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.serialization import MAP_LOCATION

from theworld.training.checkpoints.directory import Draft, new_checkpoint, remove_checkpoint, verify_checkpoint
from theworld.training.checkpoints.shards import put_back, stored_tensors

CONTENT = "checkpoint.pt"
BESIDES_TENSORS = 1 << 20
"""Bytes allowed for counters, names and the archive's directory."""


class CheckpointDirectories(CheckpointIO):
    """Writes a checkpoint aside and renames it into place; verifies one before anything of it is unpickled.

    Local paths only. What `together` wrote with divided tensors is read whole.
    """

    def save_checkpoint(
        self, checkpoint: Mapping[str, object], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Write `checkpoint` as the directory `path`.

        Raises:
            ValueError: There is not enough space on the disk, or `storage_options` were given.
        """
        if storage_options is not None:
            raise ValueError(f"found storage_options={storage_options}, expected None: checkpoints are local folders")
        path = Path(path)
        check_space(path, tensor_bytes(checkpoint) + BESIDES_TENSORS)
        with new_checkpoint(path) as draft:
            write_content(draft, checkpoint)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MAP_LOCATION = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, object]:
        """Verify the directory `path`, then read it with PyTorch's loader for plain data, which runs no code.

        A single file, as Lightning alone writes them, is read too, with a line that says that it was not verified.

        Raises:
            FileNotFoundError: Nothing is at `path`.
            ValueError: The checkpoint is torn, was tampered with, or holds more than plain data; or
                `weights_only=False` was asked for.
        """
        path = Path(path)
        if weights_only is False:
            raise ValueError(
                f"found weights_only=False for {path}, expected True: a checkpoint could run code then; leave it out"
            )
        if not path.exists():
            raise FileNotFoundError(f"{path}: found no checkpoint there")
        if not path.is_dir():
            return read_content(path, map_location=map_location)
        verify_checkpoint(path)
        stored = stored_tensors(path)
        content = read_content(path, map_location=map_location)
        return put_back(content, lambda name: stored[name].whole())

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove what is at `path`, if anything is."""
        remove_checkpoint(Path(path))


def write_content(draft: Draft, checkpoint: Mapping[str, object]) -> None:
    """Write all of a checkpoint, or all that is not divided among devices, into `draft`."""
    with draft.open(CONTENT) as file:
        torch.save(checkpoint, cast(IO[bytes], file))


def read_content(path: Path, *, map_location: MAP_LOCATION = "cpu", mmap: bool = False) -> dict[str, object]:
    """Read what `write_content` wrote into the directory `path`, which must have been verified, or a single file.

    Args:
        path: The checkpoint.
        map_location: Where its tensors go.
        mmap: Leave tensors in the file until they are used.

    Raises:
        ValueError: It holds more than plain data. None of its code has run.
    """
    if path.is_dir():
        path = path / CONTENT
    else:
        rank_zero_info(f"{path} is a single file without a manifest; it is read, but not verified")
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: found more than tensors and plain values, or no pickle at all, expected a checkpoint; it was "
            f"refused before any of its code ran. {error}"
        ) from error


def check_space(path: Path, needed: int) -> None:
    """Refuse to begin a checkpoint that the disk cannot hold.

    Args:
        path: Where the checkpoint will be; its nearest folder that exists is asked.
        needed: Bytes.

    Raises:
        ValueError: Fewer bytes are free.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = free_bytes(folder)
    if free < needed:
        raise ValueError(
            f"{path}: found {free} bytes free, expected at least the {needed} that the checkpoint needs; free some, or "
            "set trainer.default_root_dir to a folder on another disk. Earlier checkpoints were not touched"
        )


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write."""
    return shutil.disk_usage(folder).free


def tensor_bytes(value: object) -> int:
    """Bytes of all tensors in nested mappings and sequences; memory that several share is counted once, as saved."""
    sizes: dict[tuple[torch.device, int], int] = {}

    def visit(part: object) -> None:
        if isinstance(part, Tensor):
            storage = part.untyped_storage()
            sizes[storage.device, storage.data_ptr()] = storage.nbytes()
        elif isinstance(part, Mapping):
            for inner in part.values():
                visit(inner)
        elif isinstance(part, list | tuple):
            for inner in part:
                visit(inner)

    visit(value)
    return sum(sizes.values())

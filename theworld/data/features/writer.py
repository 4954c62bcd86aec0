"""Writing the cache of one tower: shard after shard, each complete or not there, going on where a run was cut short."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from theworld.data.features.crew import ALONE, Crew
from theworld.data.features.drawings import Drawings
from theworld.data.features.manifest import MANIFEST, UNFINISHED, Manifest
from theworld.data.features.shard import DTYPES, read_layout, shard_name, write_shard
from theworld.data.shards.writer import only_writer

Encode = Callable[[Sequence[list[int]]], Iterable[Tensor]]
"""From batches of entry numbers to the features of each, [batch, *shape]."""


def write_features(
    folder: Path,
    manifest: Manifest,
    drawings: Drawings,
    encode: Encode,
    *,
    crew: Crew = ALONE,
    restart: bool = False,
    progress: bool = True,
) -> bool:
    """Write what is missing. Batches never reach over a shard's end, so an interruption changes no byte of any shard.

    Args:
        folder: Of this tower's cache.
        manifest: What it is made with and from.
        drawings: Of the source.
        encode: Called once, with the batches of all missing shards that this process makes.
        crew: The processes that write it together; each must call this.
        restart: Throw away what is there.
        progress: Show a progress bar.

    Returns:
        Whether this process had anything to make.

    Raises:
        ValueError: The folder holds something else, another process writes to it, or `encode` gives something else than
            the manifest says, or no finite numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder) if crew.is_first else nullcontext():
        if crew.is_first:
            if restart:
                _empty(folder)
            _claim(folder, manifest)
        crew.wait()
        numbers = [number for number in range(manifest.num_shards) if crew.makes(number)]
        missing = [number for number in numbers if not _is_whole(folder, number, manifest)]
        made = iter(encode([batch for number in missing for batch in _batches(manifest, number)]))
        with _bar(manifest, numbers, shown=progress and crew.is_first) as advance:
            advance(sum(len(manifest.members(number)) for number in numbers if number not in missing))
            for number in missing:
                members = manifest.members(number)
                entries = _collect(made, manifest, len(members), advance)
                keys = [drawings.keys[entry].tobytes() for entry in members]
                write_shard(folder, number, manifest, keys=keys, entries=entries)
        crew.wait()
        if crew.is_first:
            _complete(folder, manifest)
    return bool(missing)


def _complete(folder: Path, manifest: Manifest) -> None:
    """All shards are there: give the manifest its name."""
    sizes = tuple((folder / shard_name(number)).stat().st_size for number in range(manifest.num_shards))
    if not (folder / MANIFEST).exists() or Manifest.read(folder / MANIFEST).shard_bytes != sizes:
        replace(manifest, shard_bytes=sizes).write(folder / MANIFEST)
    (folder / UNFINISHED).unlink(missing_ok=True)


def _claim(folder: Path, manifest: Manifest) -> None:
    """Begin, or go on if all facts are as they were."""
    for name in (MANIFEST, UNFINISHED):
        if (folder / name).exists():
            if differences := Manifest.read(folder / name).differences(manifest.facts):
                raise ValueError(
                    f"{folder}: holds another cache: {'; '.join(differences)}. Choose another folder, set the command "
                    "back, or begin again with --restart (which removes what is there)."
                )
            return
    if strangers := [path.name for path in folder.iterdir() if not path.name.startswith(".")]:
        raise ValueError(f"{folder}: found {strangers[:3]}, expected an empty folder or a cache; choose another.")
    manifest.write(folder / UNFINISHED)


def _is_whole(folder: Path, number: int, manifest: Manifest) -> bool:
    """A shard is renamed into place once it is on the disk, so one that is there and fits is complete."""
    try:
        read_layout(folder / shard_name(number), number, manifest)
    except (ValueError, OSError):
        return False
    return True


def _batches(manifest: Manifest, shard: int) -> Iterator[list[int]]:
    members, size = manifest.members(shard), manifest.batch_size
    for first in range(0, len(members), size):
        yield list(members[first : first + size])


def _collect(made: Iterator[Tensor], manifest: Manifest, count: int, advance: Callable[[int], None]) -> Tensor:
    """The next `count` entries; [count, *shape]."""
    entries = torch.empty(count, *manifest.shape, dtype=DTYPES[manifest.dtype])
    done = 0
    while done < count:
        part = next(made)
        if part.shape[1:] != manifest.shape or part.dtype != entries.dtype:
            raise ValueError(
                f"the tower gave {part.dtype} {tuple(part.shape[1:])}, expected {entries.dtype} {manifest.shape}, "
                "as it gave of the first picture."
            )
        if not torch.isfinite(part).all():  # it would be found in training only, long after it was made
            raise ValueError(
                f"the tower gave values that are no finite numbers, for pictures {done} to {done + len(part) - 1} of a "
                "shard, expected finite ones; try another precision or dtype, and look at its weights."
            )
        entries[done : done + len(part)] = part
        done += len(part)
        advance(len(part))
    return entries


def _empty(folder: Path) -> None:
    """Remove what `write_features` writes, and nothing else."""
    for name in (MANIFEST, UNFINISHED):  # first, so that what is left is never taken for a cache
        (folder / name).unlink(missing_ok=True)
    for path in [*folder.glob("shard-??????.safetensors"), *folder.glob(".shard-??????.safetensors.draft")]:
        path.unlink()


@contextmanager
def _bar(manifest: Manifest, numbers: Sequence[int], *, shown: bool) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn(f"encoding {manifest.feature}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("", total=sum(len(manifest.members(number)) for number in numbers))
        yield lambda count: bar.advance(task, count)

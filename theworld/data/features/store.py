"""Reading the cache of one tower in a run: an entry for a row, checked before it is believed."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from theworld.data.features.drawings import Drawings
from theworld.data.features.manifest import MANIFEST, UNFINISHED, Manifest
from theworld.data.features.shard import DTYPES, Layout, checksum, read_entry, read_layout, shard_name
from theworld.types import FEATURES

DRAWINGS = "drawings.safetensors"
_OPEN_FILES = 64
"""Shards kept open by a process; a run shuffles over all of them, and there may be more than it may have open files."""


class FeatureStore:
    """Entries of one tower; safe to pickle and to fork.

    Sizes of all shards are checked here, an entry's checksum when it is read: at hundreds of gigabytes, hashing
    everything at each start would take longer than the run saves.

    Args:
        folder: That `theworld data cache` wrote.
        feature: `image_features` or `world_latents`.

    Attributes:
        manifest: What the cache was made with and from.

    Raises:
        ValueError: The cache is not complete, a shard is not of its size, or drawings and manifest do not fit.
    """

    def __init__(self, folder: Path, feature: str):
        self.folder = folder / feature
        if not (self.folder / MANIFEST).is_file() and (self.folder / UNFINISHED).is_file():
            raise ValueError(
                f"{self.folder}: the cache is not complete; start the same `theworld data cache` again, it goes on "
                "where it stopped."
            )
        self.manifest = Manifest.read(self.folder / MANIFEST)
        if self.manifest.feature != feature:
            raise ValueError(f"{self.folder}: holds {self.manifest.feature}, expected {feature}; rename the folder.")
        drawings = Drawings.read(folder / DRAWINGS)
        if (drawings.index_sha256, len(drawings)) != (self.manifest.index_sha256, self.manifest.entries):
            raise ValueError(
                f"{folder / DRAWINGS}: describes {len(drawings)} drawings of the index {drawings.index_sha256}, "
                f"expected {self.manifest.entries} of {self.manifest.index_sha256}; make the cache again with "
                "`theworld data cache`."
            )
        self._entry = drawings.entry
        self._layouts: dict[int, Layout] = {}
        self._open: OrderedDict[int, int] = OrderedDict()
        self._check_sizes()

    @property
    def name(self) -> str:
        """The folder, for messages."""
        return str(self.folder)

    def refuse_other(self, expected: Mapping[str, object], *, fix: str) -> None:
        """Refuse entries that are not what the run would compute.

        Args:
            expected: Facts of the manifest, by name.
            fix: What to do about it, for the message.

        Raises:
            ValueError: Some differ; says which, and how.
        """
        if differences := self.manifest.differences(expected):
            raise ValueError(f"the cache {self.name} is stale: {'; '.join(differences)}. {fix}")

    def zeros(self) -> Tensor:
        """An entry's shape and type."""
        return torch.zeros(self.manifest.shape, dtype=DTYPES[self.manifest.dtype])

    def read(self, row: int, key: bytes) -> Tensor:
        """The entry of a row.

        Args:
            row: Row number in the source.
            key: `drawing_key` of the row as it is now.

        Raises:
            ValueError: The row has no entry, or not with this key; or the entry is damaged.
            OSError: It cannot be read at the moment.
        """
        number = int(self._entry[row])
        if number < 0:
            raise ValueError(f"{self.name}: has no entry for row {row}, which was no sample when it was made.")
        shard, place = divmod(number, self.manifest.entries_per_shard)
        if shard not in self._layouts:
            self._layouts[shard] = read_layout(self.folder / shard_name(shard), shard, self.manifest)
        layout = self._layouts[shard]
        entry = read_entry(self._descriptor(shard), layout, place, self.manifest)
        if entry is None or checksum(key, entry) != layout.sums[place]:
            raise ValueError(
                f"{self.folder / shard_name(shard)}: entry {place}, for row {row}, is damaged or of another drawing "
                "(its checksum differs); remove the shard and start the same `theworld data cache` again."
            )
        return entry

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": OrderedDict()}

    def _descriptor(self, shard: int) -> int:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        if len(self._open) >= _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        self._open[shard] = os.open(self.folder / shard_name(shard), os.O_RDONLY)
        return self._open[shard]

    def _check_sizes(self) -> None:
        for number, expected in enumerate(self.manifest.shard_bytes):
            path = self.folder / shard_name(number)
            found = path.stat().st_size if path.is_file() else None
            if found != expected:
                raise ValueError(
                    f"{path}: found {'no file' if found is None else f'{found} bytes'}, expected {expected} bytes; "
                    "remove what is left of it and start the same `theworld data cache` again."
                )


def open_features(folder: str | Path, *, enable_world: bool) -> dict[str, FeatureStore]:
    """The caches of a folder, by feature.

    Args:
        folder: That `theworld data cache` wrote.
        enable_world: False leaves the world encoder's out.

    Raises:
        ValueError: There is none, or one of them cannot be used.
    """
    folder = Path(folder).expanduser()
    wanted = [feature for feature in FEATURES if enable_world or feature != "world_latents"]
    found = {feature: FeatureStore(folder, feature) for feature in wanted if (folder / feature).is_dir()}
    if not found:
        raise ValueError(f"{folder}: found none of {', '.join(wanted)}; make them with `theworld data cache`.")
    return found

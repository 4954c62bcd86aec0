"""What the cache of one tower was made with and from, in its folder as one JSON object; and refusing another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from theworld.data.indexing.table import write_durably

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
UNFINISHED = "unfinished.json"
"""The manifest's name until the last shard is on the disk."""

_UNSAID: dict[str, object] = {"num_world_steps": "0"}
"""Facts of a cache that does not state them: the world encoder's own latents are of the present frame."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that decides an entry besides its drawing, and how entries lie in shards.

    Attributes:
        format_version: Of the folder.
        feature: `image_features` or `world_latents`.
        encoder: What the tower was and how it ran: `weights_sha256`, `weights_dtype`, `precision`, `device`; and if a
            world source made the latents, its fingerprint, with `num_world_steps` where it makes future frames.
        preprocessing_sha256: From drawing to pixels (`theworld.data.features.preprocessing`).
        index_sha256: `Index.pictures_sha256` of the source.
        dtype: Of an entry: `float32`, `bfloat16` or `float16`.
        shape: Of an entry.
        entries: How many there are.
        entries_per_shard: In every shard but the last.
        batch_size: Images the tower was given at a time; some kernels' last bits depend on it.
        made_with: Versions, for the reader.
        shard_bytes: Size of every shard; empty until all are written.
    """

    format_version: int = FORMAT_VERSION
    feature: str
    encoder: Mapping[str, str]
    preprocessing_sha256: str
    index_sha256: str
    dtype: str
    shape: tuple[int, ...]
    entries: int
    entries_per_shard: int
    batch_size: int
    made_with: str
    shard_bytes: tuple[int, ...] = ()

    @property
    def num_shards(self) -> int:
        """How many shards hold the entries."""
        return -(-self.entries // self.entries_per_shard)

    def members(self, shard: int) -> range:
        """Numbers of the entries of a shard."""
        first = shard * self.entries_per_shard
        return range(first, min(first + self.entries_per_shard, self.entries))

    @property
    def facts(self) -> dict[str, object]:
        """What must be the same for a shard to belong to this cache, by name."""
        fields = asdict(self)
        del fields["made_with"], fields["shard_bytes"]
        return {**fields.pop("encoder"), **fields}

    @property
    def sha256(self) -> str:
        """Hash of the facts; every shard carries it."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()

    def differences(self, expected: Mapping[str, object]) -> list[str]:
        """What differs from the expected facts, as `name (cache ..., now ...)`."""
        found = _UNSAID | self.facts
        return [f"{name} (cache {found.get(name)}, now {now})" for name, now in expected.items() if found[name] != now]

    def write(self, path: Path) -> None:
        """Write atomically."""
        write_durably(path, (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """From `write`.

        Raises:
            ValueError: Not such a file, or of another format version.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            version = fields["format_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: not a readable manifest ({error!r}); make the cache again with `theworld data cache`."
            ) from error
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path}: has format version {version}, expected {FORMAT_VERSION}; make the cache again with "
                "`theworld data cache --restart`."
            )
        try:
            return cls(**fields | {"shape": tuple(fields["shape"]), "shard_bytes": tuple(fields["shard_bytes"])})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: is damaged ({error!r}); make the cache again with `theworld data cache --restart`."
            ) from error

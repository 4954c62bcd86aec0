"""From what a config says about a source to its samples: which index, which store, and what does not fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from theworld.data.features.preprocessing import preprocessing_sha256
from theworld.data.features.store import FeatureStore, open_features
from theworld.data.indexing.build import build_index
from theworld.data.indexing.header import make_header, refuse_other
from theworld.data.indexing.index import Index
from theworld.data.packing.mixture import Mixture, Source
from theworld.data.pictures.regions import RegionStyle
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.formats import format_named
from theworld.data.rows.osd import OSDRows
from theworld.data.samples import OSDSamples
from theworld.data.shards.store import ShardStore
from theworld.data.stores import FolderStore, RowStore
from theworld.data.synthetic import SyntheticScenes


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of training samples: rows and images in a folder, or shards.

    Args:
        name: Before the ids of its samples, and in messages.
        path: Rows: JSON array or JSON Lines.
        images: Folder of their images.
        index: Index of rows or shards (`theworld data index`, `theworld data shard`). By default rows are read
            through at every start, and shards in a folder have theirs beside them.
        shards: Folder or URL of tar shards, in place of path and images.
        row_format: What the rows are: `osd`, `llava` or `vsr`.
        features: Folder of cached features of frozen towers (`theworld data cache`), read as long as they stay frozen.
        share: How often each of its samples is seen in an epoch; 0.5: half of them, the other half in the next epoch.
        loss_weight: What a target token counts in the loss, beside those of other sources.
    """

    name: str
    path: str | None = None
    images: str | None = None
    index: str | None = None
    shards: str | None = None
    row_format: str = "osd"
    features: str | None = None
    share: float = 1.0
    loss_weight: float = 1.0

    @property
    def is_given(self) -> bool:
        """Whether it says where anything is."""
        return any((self.path, self.images, self.index, self.shards, self.features))

    def check(self, prefix: str) -> None:
        """Refuse what does not fit together.

        Args:
            prefix: Of the names of its settings in the config, such as `train_`.
        """
        format_named(self.row_format)
        if (self.path is None) != (self.images is None):
            raise ValueError(
                f"found {prefix}path={self.path!r} and {prefix}images={self.images!r}, expected both or neither; add "
                "the other."
            )
        if self.shards is not None and self.path is not None:
            raise ValueError(
                f"found {prefix}path={self.path!r} and {prefix}shards={self.shards!r}, expected one of them; shards "
                "hold rows and images."
            )
        if self.index is not None and self.path is None and self.shards is None:
            raise ValueError(
                f"found {prefix}index={self.index!r} alone, expected {prefix}path and {prefix}images, or "
                f"{prefix}shards, beside it."
            )
        if self.features is not None and self.path is None and self.shards is None:
            raise ValueError(
                f"found {prefix}features={self.features!r} alone, expected the rows that they were made of beside it; "
                f"give {prefix}path and {prefix}images, or {prefix}shards."
            )


@dataclass(frozen=True, kw_only=True)
class SourceOpener:
    """Opens sources for one run.

    Args:
        processor: Text and images to tensors.
        max_seq_length: Longest sample, in tokens.
        region_style: How regions are drawn.
        skip_malformed: False stops at the first malformed row of a file without an index.
        cache_dir: Folder of the node cache of remote shards.
        cache_bytes: What it may take.
    """

    processor: TheWorldProcessor
    max_seq_length: int
    region_style: RegionStyle
    skip_malformed: bool
    cache_dir: str
    cache_bytes: int

    def open(self, source: SourceConfig) -> OSDSamples:
        """The samples of a source.

        Raises:
            ValueError: A row, an index or a store that cannot be used; the message says why.
        """
        if self.processor.fixed_tokens >= self.max_seq_length:
            raise ValueError(
                f"max_seq_length is {self.max_seq_length}, expected more than the {self.processor.fixed_tokens} tokens "
                "that every sample has before its first question (world block, image block, turn header)."
            )
        row_format = format_named(source.row_format)
        store: RowStore
        if source.shards is not None:
            index = self._read(source, _shard_index(source))
            store = ShardStore(index, _expanded(source.shards), cache_dir=self.cache_dir, cache_bytes=self.cache_bytes)
        else:
            assert source.path is not None
            assert source.images is not None
            path, images = Path(source.path).expanduser(), Path(source.images).expanduser()
            if source.index is None:
                index = build_index(
                    OSDRows(path, image_folder=images, row_format=row_format),
                    self.processor,
                    max_seq_length=self.max_seq_length,
                    name=source.name,
                    region_style=self.region_style,
                    skip_malformed=self.skip_malformed,
                )
            else:
                index = self._read(source, Path(source.index).expanduser())
            store = FolderStore(index, rows_path=path, image_folder=images)
        return OSDSamples(
            store,
            index=index,
            processor=self.processor,
            row_format=row_format,
            region_style=self.region_style,
            features=self._features(source, index),
        )

    def _features(self, source: SourceConfig, index: Index) -> dict[str, FeatureStore]:
        if source.features is None:
            return {}
        stores = open_features(source.features, enable_world=self.processor.enable_world)
        for feature, store in stores.items():
            made = preprocessing_sha256(self.processor, feature, region_style=self.region_style)
            expected = {"index_sha256": index.pictures_sha256, "preprocessing_sha256": made}
            fix = f"Make it again with `theworld data cache`, or leave out the features of {source.name}."
            store.refuse_other(expected, fix=fix)
        return stores

    def _read(self, source: SourceConfig, path: Path) -> Index:
        index = Index.read(path, name=source.name)
        expected = make_header(
            self.processor,
            row_format=source.row_format,
            source=index.header.source,
            max_seq_length=self.max_seq_length,
            region_style=self.region_style,
        )
        refuse_other(index, expected, path=path)
        if bool(index.header.shards) != (source.shards is not None):
            found, needed = ("shards", "the folder") if index.header.shards else ("a folder", "shards")
            raise ValueError(f"{path}: is the index of {found}, expected the one of {needed} of {source.name}.")
        if not len(index):
            raise ValueError(f"{path}: none of its {len(index.table)} rows can be used: {index.summary()}.")
        return index


def check_sources(splits: Mapping[str, SourceConfig], mixed: Sequence[SourceConfig], *, is_synthetic: bool) -> None:
    """Refuse what does not fit together.

    Args:
        splits: The sources that the config's own paths name, by split.
        mixed: The config's `sources`.
        is_synthetic: Whether it has `synthetic`, too.
    """
    for split, source in splits.items():
        source.check(f"{split}_")
        if is_synthetic and source.is_given:
            raise ValueError(f"found {split}_path and `synthetic`, expected one of them; remove the other.")
    for number, source in enumerate(mixed):
        source.check(f"sources[{number}].")
        if not source.is_given:
            raise ValueError(f"sources[{number}] {source.name!r} says nothing of where it is; give path and images.")
    if mixed and (is_synthetic or splits["train"].is_given):
        other = "`synthetic`" if is_synthetic else "train_path or train_shards"
        raise ValueError(f"found `sources` and {other}, expected one of them; remove the other.")


def check_settings(
    *, max_seq_length: int, token_budget: int, world_tokens: int, region_style: str, counts: Mapping[str, int]
) -> None:
    """Refuse samples that no packed row can hold, samples that hold nothing, and other values that make no sense.

    Args:
        max_seq_length: Longest sample, in tokens.
        token_budget: Tokens of a packed row.
        world_tokens: World placeholders of a sample.
        region_style: How regions are drawn.
        counts: By name, what must be at least 1.
    """
    if token_budget < max_seq_length:
        raise ValueError(
            f"token_budget is {token_budget}, expected at least max_seq_length={max_seq_length}: "
            "a packed row must hold the longest sample."
        )
    if world_tokens and max_seq_length <= world_tokens:
        raise ValueError(
            f"max_seq_length is {max_seq_length}, expected more than num_world_tokens={world_tokens}, "
            "which every sample carries; raise it, or use world_projection_mode 'channel' or a smaller "
            "world_image_size."
        )
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1.")
    if region_style not in ("box", "mask"):
        raise ValueError(f"region_style is {region_style!r}, expected 'box' or 'mask'.")


def drawn(splits: Mapping[str, SourceConfig], scenes: SyntheticScenes) -> dict[str, SourceConfig]:
    """The sources of the splits, once the scenes are drawn."""
    made = scenes.generate(progress=False)
    places = {split: (getattr(made, f"{split}_path"), getattr(made, f"{split}_images")) for split in splits}
    return {
        split: replace(source, path=str(places[split][0]), images=str(places[split][1]))
        for split, source in splits.items()
    }


def mixture(configs: Sequence[SourceConfig], samples: Sequence[OSDSamples]) -> Mixture:
    """The opened sources as one."""
    return Mixture(
        [
            Source(config.name, opened, share=config.share, loss_weight=config.loss_weight)
            for config, opened in zip(configs, samples, strict=True)
        ]
    )


def check_cache(
    configs: Sequence[SourceConfig], samples: Sequence[OSDSamples], *, window: int | None, bytes: int
) -> None:
    """Refuse an order of reading that would fetch the same remote blocks again and again.

    Args:
        configs: The sources.
        samples: Of each source.
        window: Shards that are shuffled together; None for all.
        bytes: What the node cache may take.
    """
    remote = [opened.index for config, opened in zip(configs, samples, strict=True) if _is_url(config.shards)]
    sizes = sorted((shard.bytes for index in remote for shard in index.header.shards), reverse=True)
    at_once = sizes if window is None else sizes[: window + 1]  # the next window begins while the last one ends
    if sum(at_once) > bytes:
        fitting = max(bytes // sizes[0] - 1, 0)
        raise ValueError(
            f"found shuffle_window={window} over remote shards, which reads {len(at_once)} of them at a time, "
            f"{sum(at_once)} bytes, expected at most cache_bytes={bytes}; set shuffle_window to {fitting} or less, "
            "raise cache_bytes, or copy the shards to a local folder."
        )


def _shard_index(source: SourceConfig) -> Path:
    assert source.shards is not None
    if source.index is not None:
        return Path(source.index).expanduser()
    if _is_url(source.shards):
        raise ValueError(
            f"found {source.name}'s shards at {source.shards} without an index, expected a local copy of the "
            "index.parquet that `theworld data shard` wrote beside them; give its path."
        )
    return Path(source.shards).expanduser() / "index.parquet"


def _expanded(place: str) -> str:
    return place if _is_url(place) else str(Path(place).expanduser())


def _is_url(place: str | None) -> bool:
    return place is not None and "://" in place

"""`theworld data cache`: run the towers over a source once, and keep what they make of its images.

A run with `data.train_features` then runs no frozen tower and decodes no image (`callbacks.cached_features`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from theworld import __version__
from theworld.data.features.crew import Crew
from theworld.data.features.drawings import Drawings, find_drawings
from theworld.data.features.manifest import Manifest
from theworld.data.features.preprocessing import preprocessing_sha256
from theworld.data.features.store import DRAWINGS
from theworld.data.features.writer import write_features
from theworld.data.indexing.index import Index
from theworld.data.packing.memory import keep_freed_memory
from theworld.data.pictures.regions import RegionStyle
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.formats import format_named
from theworld.data.shards.store import open_store
from theworld.data.shards.writer import SHARD_BYTES
from theworld.data.shown import describe_row, draw_row
from theworld.data.stores import RowStore
from theworld.models.loading import cosmos_of, is_export
from theworld.models.theworld import TheWorld
from theworld.models.towers import TOWER_GROUPS, Feature, Precision, autocast, encode, encoder_facts, tower
from theworld.models.world_sources.hidden_states import HiddenStatesSettings
from theworld.models.world_sources.rollout import RolloutSettings
from theworld.models.world_sources.source import SourceSettings, WorldSource, content_keys

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def cache_features(
    *,
    index: str,
    output: str,
    base: str,
    rows: str | None = None,
    images: str | None = None,
    shards: str | None = None,
    cosmos_model: str | None = None,
    features: Sequence[Feature] = ("image_features", "world_latents"),
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
    trained_later: Sequence[Feature] = (),
    rollout: RolloutSettings | None = None,
    hidden_states: HiddenStatesSettings | None = None,
    source: SourceSettings | None = None,
    text: str | None = None,
    precision: Precision = "bf16-mixed",
    device: str | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    shard_bytes: int = SHARD_BYTES,
    restart: bool = False,
) -> None:
    """Keep what SigLIP and the world encoder make of every image of a source, for stages in which they are frozen.

    An interrupted run goes on where it stopped when it is started again in the same way. Under torchrun the processes
    share the work, each on a GPU of its own: `torchrun --nproc-per-node=8 -m theworld data cache …`.

    Args:
        index: The parquet file that `theworld data index` or `theworld data shard` made.
        output: Folder of the cache.
        base: Model whose towers run, as `model.base` of the run to come.
        rows: The file that was indexed.
        images: The folder that was indexed.
        shards: Folder or URL of the tars, in place of `rows` and `images`.
        cosmos_model: As `model.cosmos_model` of the run; of an export, where only the denoiser is read.
        features: Which to make: `image_features` (SigLIP's, pooled), `world_latents`.
        dtype: As `model.dtype` of the run.
        trained_later: Those whose tower a later stage of the same run trains. A run keeps in float32 what any of its
            stages trains, from its first step on.
        rollout: Makes latents of the present and of `num_world_steps` future frames, by the denoiser of `cosmos_model`.
        hidden_states: Makes hidden states of that denoiser in place of latents.
        source: Any other world source, by the class of its settings and their values.
        text: A safetensors file of text embeddings for the denoiser (`theworld.models.world_sources.text`).
        precision: As `trainer.precision` of the run.
        device: `cuda` or `cpu`, as that of the run; by default the GPU if there is one.
        batch_size: Images that a tower is given at a time. With 1 an entry depends on nothing else; more is faster on a
            GPU, but kernels may then give other last bits.
        num_workers: Worker processes that read and draw images; 0 does it in this one.
        shard_bytes: Most bytes of a shard, unless one entry is larger.
        restart: Throw away what is there of these features.
    """
    found = Index.read(Path(index).expanduser())
    store = open_store(found, rows, images, shards)
    settings = found.header.settings
    wanted = [name for name in TOWER_GROUPS if name in features and (settings.enable_world or name != "world_latents")]
    if not wanted or batch_size < 1:
        raise ValueError(
            f"found features={list(features)}, batch_size={batch_size}, enable_world={settings.enable_world} in the "
            "index, expected something to make, at least one image at a time."
        )
    asked = [one for one in (rollout, hidden_states, source) if one is not None]
    model = load_towers(
        base,
        cosmos_model=None if asked and is_export(base) else cosmos_model,  # an export brings its own, but no denoiser
        enable_world="world_latents" in wanted,
        world_image_size=settings.world_image_size,
        dtype=_DTYPES[dtype],
        trained_later=trained_later,
    )
    maker = _source(model, cosmos_of(base, cosmos_model), asked, text=text, dtype=_DTYPES[dtype])
    with Crew.of_torchrun() as crew:
        folder, where = Path(output).expanduser(), crew.device(device)
        drawings = _drawings(store, found, folder, crew, restart=restart)
        for name in wanted:
            pixels = _DrawnPixels(store, found, drawings, name, base=base)
            tower(model, name).to(where)
            made_by = maker.to(where) if maker is not None and name == "world_latents" else None
            run = partial(_encode, model, name, made_by, precision=precision, device=where)
            manifest = _manifest(
                model, run, pixels, made_by, precision=precision, batch_size=batch_size, shard_bytes=shard_bytes
            )
            batches = partial(_batches, run, pixels, num_workers=num_workers)
            made = write_features(folder / name, manifest, drawings, batches, crew=crew, restart=restart)
            tower(model, name).to("cpu")
            if crew.is_first:
                _report(folder / name, manifest, num_samples=len(found), made=made)


def _report(folder: Path, manifest: Manifest, *, num_samples: int, made: bool) -> None:
    total = sum(path.stat().st_size for path in folder.iterdir())
    print(
        f"{folder}: {manifest.entries} entries {manifest.shape} in {manifest.dtype} for {num_samples} samples, "
        f"{total / 1e9:.3f} GB in {manifest.num_shards} shards{'' if made else ', complete before'}"
    )


def load_towers(
    base: str,
    *,
    cosmos_model: str | None,
    enable_world: bool,
    world_image_size: int,
    dtype: torch.dtype,
    trained_later: Sequence[Feature] = (),
) -> TheWorld:
    """A model of which only the towers are left, in evaluation mode and without gradients.

    Args:
        base: As `TheWorld.from_pretrained` has it.
        cosmos_model: Likewise.
        enable_world: Whether the world encoder is wanted.
        world_image_size: Side in pixels of the frame it sees.
        dtype: Type in which weights are loaded.
        trained_later: Towers that are then cast to float32, as `theworld.training.optimizer_rules.promote` does.
    """
    model = TheWorld.from_pretrained(
        base,
        cosmos_model=cosmos_model,
        enable_world=enable_world,
        dtype=dtype,
        world_image_size=world_image_size if enable_world else None,
    )
    model.gemma.model.language_model = nn.Identity()
    model.gemma.lm_head = nn.Identity()
    for feature in trained_later:
        for parameter in tower(model, feature).parameters():
            parameter.data = parameter.data.float()
    return model.requires_grad_(False).eval()


def _source(
    model: TheWorld,
    cosmos_model: str,
    asked: Sequence[SourceSettings],
    *,
    text: str | None,
    dtype: torch.dtype,
) -> WorldSource | None:
    """What makes the latents, if it is not the world encoder alone."""
    encoder = model.cosmos_encoder
    if not asked and text is None:
        return None
    if encoder is None or len(asked) != 1:
        raise ValueError(
            f"found {asked}, text={text} and world_latents {'' if encoder is not None else 'not '}among the features, "
            "expected one of rollout, hidden_states and source, and world_latents of an index that has them"
        )
    return asked[0].source(encoder.vae, cosmos_model, text=text, dtype=dtype)


class _DrawnPixels(Dataset[Tensor]):
    """What a tower sees of each drawing; float32[3, H, W]."""

    def __init__(self, store: RowStore, index: Index, drawings: Drawings, feature: Feature, *, base: str):
        settings = index.header.settings
        self.store = store
        self.index = index
        self.drawings = drawings
        self.feature = feature
        self.row_format = format_named(index.header.row_format)
        self.region_style: RegionStyle = "mask" if settings.region_style == "mask" else "box"
        self.processor = TheWorldProcessor.from_pretrained(
            base,
            num_world_tokens=settings.num_world_tokens,
            world_image_size=settings.world_image_size,
            enable_world=settings.enable_world,
        )

    def __len__(self) -> int:
        return len(self.drawings)

    def __getitem__(self, entry: int) -> Tensor:
        row = describe_row(self.store, self.index, int(self.drawings.rows[entry]), row_format=self.row_format)
        image = draw_row(self.store, self.index, row, region_style=self.region_style)
        make = self.processor.pixels if self.feature == "image_features" else self.processor.world_pixels
        return make(image)[0]


def _drawings(store: RowStore, index: Index, folder: Path, crew: Crew, *, restart: bool) -> Drawings:
    """Those of the folder, if they are of this index; else found, and written there, by the first process."""
    path = folder / DRAWINGS
    if not crew.is_first:
        crew.wait()
        return Drawings.read(path)
    drawings = _drawings_of(store, index, path, restart=restart)
    crew.wait()
    return drawings


def _drawings_of(store: RowStore, index: Index, path: Path, *, restart: bool) -> Drawings:
    folder = path.parent
    if path.exists() and not restart:
        drawings = Drawings.read(path)
        if drawings.index_sha256 != index.pictures_sha256:
            raise ValueError(
                f"{folder}: holds the cache of another index (cache {drawings.index_sha256}, now "
                f"{index.pictures_sha256}). Choose another folder, or begin again with --restart (which removes what "
                "is there)."
            )
        return drawings
    folder.mkdir(parents=True, exist_ok=True)
    drawings = find_drawings(store, index, row_format=format_named(index.header.row_format))
    drawings.write(path)
    return drawings


def _manifest(
    model: TheWorld,
    run: partial[Tensor],
    pixels: _DrawnPixels,
    source: WorldSource | None,
    *,
    precision: Precision,
    batch_size: int,
    shard_bytes: int,
) -> Manifest:
    """With shape and type of an entry as the tower gives them."""
    first = run(pixels[0][None])[0]
    made_by = {} if source is None else {name: str(value) for name, value in source.fingerprint().items()}
    return Manifest(
        feature=pixels.feature,
        encoder=encoder_facts(model, pixels.feature, precision=precision) | made_by,
        preprocessing_sha256=preprocessing_sha256(pixels.processor, pixels.feature, region_style=pixels.region_style),
        index_sha256=pixels.index.pictures_sha256,
        dtype=str(first.dtype).removeprefix("torch."),
        shape=tuple(first.shape),
        entries=len(pixels),
        entries_per_shard=max(1, shard_bytes // first.nbytes),
        batch_size=batch_size,
        made_with=f"theworld {__version__}, torch {torch.__version__}, transformers {transformers.__version__}",
    )


def _encode(
    model: TheWorld,
    feature: Feature,
    source: WorldSource | None,
    pixels: Tensor,
    *,
    precision: Precision,
    device: torch.device,
) -> Tensor:
    """On the device, under the run's precision; the features on the CPU."""
    with torch.no_grad(), autocast(precision, device):
        if source is not None:
            return source.encode(pixels.to(device), content_keys(pixels)).cpu()
        return encode(model, feature, pixels.to(device)).cpu()


def _batches(
    run: partial[Tensor], pixels: _DrawnPixels, batches: Sequence[list[int]], *, num_workers: int
) -> Iterator[Tensor]:
    """Features of each batch of drawings, in order."""
    loader = DataLoader(pixels, batch_sampler=batches, num_workers=num_workers, worker_init_fn=keep_freed_memory)
    for batch in loader:
        yield run(batch)

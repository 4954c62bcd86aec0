"""World latents of two frames: of the picture, and of what it shows a moment later.

A source like a rollout, but for knowing the future: no model can be asked for more of it. Written as a cache in the one
format, it is read by the ordinary `theworld fit`.

W pictures · C latent channels · h, w latent cells
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from theworld.data.features.drawings import Drawings
from theworld.data.features.manifest import Manifest
from theworld.data.features.preprocessing import preprocessing_sha256
from theworld.data.features.store import DRAWINGS
from theworld.data.features.writer import write_features
from theworld.data.indexing.index import Index
from theworld.data.processor import TheWorldProcessor
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore
from theworld.feature_cache import load_towers
from theworld.models.theworld import TheWorld
from theworld.models.towers import encoder_facts
from theworld.models.weights_digest import weights_sha256
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.source import Facts, WorldSource

BASE = "theworld-tiny"
PRECISION = "32-true"
BATCH = 16
"""Pictures that the world encoder is given at a time."""


Shown = Literal["first", "second"]
"""A frame of a pair."""


class TrueFrames(WorldSource):
    """Latents of the picture and of the true second frame, each encoded alone; for controls, of one of them twice.

    Args:
        vae: Encodes both.
        second: Path of the second frame by key; a picture without one is an error.
        pixels: From a picture to what the world encoder sees of it, float32[1, 3, h, w].
        frames: Which is put into the place of the present frame, and which into that of the future one.
    """

    num_frames = 2

    def __init__(
        self,
        vae: WorldEncoder,
        second: Mapping[str, Path],
        pixels: Callable[[Image.Image], Tensor],
        *,
        frames: tuple[Shown, Shown] = ("first", "second"),
    ) -> None:
        self.vae = vae
        self.frames = frames
        self.latent_channels = vae.latents_mean.shape[1]
        self._second = second
        self._pixels = pixels

    @torch.no_grad()
    def encode(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """As `WorldSource.encode` has it: float32[W, C, 2, h/8, w/8]."""
        made: dict[Shown, Tensor] = {}
        if "first" in self.frames:
            made["first"] = self.vae(pixels)  # (W, C, 1, h/8, w/8)
        if "second" in self.frames:
            after = [self._pixels(Image.open(self._second[key]).convert("RGB")) for key in keys]
            made["second"] = self.vae(torch.cat(after).to(pixels))
        return torch.cat([made[frame] for frame in self.frames], dim=2)

    def fingerprint(self) -> Facts:
        """Weights, which frames, and the files of all second frames."""
        files = hashlib.sha256()
        for key in sorted(self._second):
            files.update(f"{key} {hashlib.sha256(self._second[key].read_bytes()).hexdigest()}\n".encode())
        kind = "true_frames" if self.frames == ("first", "second") else f"{'_'.join(self.frames)}_frame"
        facts = {"vae_sha256": weights_sha256(self.vae, {}), "frames_sha256": files.hexdigest()}
        return {"kind": kind, "num_world_steps": 1} | facts

    def to(self, device: torch.device | str) -> TrueFrames:
        """Move the encoder."""
        self.vae.to(device)
        return self


@dataclass(frozen=True, kw_only=True)
class Split:
    """The files of one split.

    Attributes:
        rows: In OSD's schema.
        images: First frames.
        second: Second frames, under the rows' ids.
        index: Of `theworld data index`, with one world step.
    """

    rows: Path
    images: Path
    second: Path
    index: Path

    def samples(self, side: int) -> OSDSamples:
        """The rows as the model sees them.

        Args:
            side: Of the world encoder's frame, in pixels.
        """
        index = Index.read(self.index)
        processor = TheWorldProcessor.from_pretrained(
            BASE, num_world_tokens=index.header.settings.num_world_tokens, world_image_size=side
        )
        store = FolderStore(index, rows_path=self.rows, image_folder=self.images)
        return OSDSamples(store, index=index, processor=processor)


def cache_frames(split: Split, output: Path, *, side: int, frames: tuple[Shown, Shown] = ("first", "second")) -> None:
    """Add the world latents of both frames to a cache that has the drawings of the split.

    Args:
        split: Its files.
        output: Folder that `theworld data cache` made of the same index.
        side: Of the world encoder's frame, in pixels.
        frames: As in `TrueFrames`.
    """
    samples, drawings = split.samples(side), Drawings.read(output / DRAWINGS)
    model = load_towers(BASE, cosmos_model=None, enable_world=True, world_image_size=side, dtype=torch.float32)
    assert model.cosmos_encoder is not None
    vae = model.cosmos_encoder.vae
    keys = [key.tobytes().hex() for key in drawings.keys]
    second = {key: split.second / f"{samples.id(row)}.png" for key, row in zip(keys, drawings.rows, strict=True)}
    source = TrueFrames(vae, second, samples.processor.world_pixels, frames=frames)

    def encode(batches: Sequence[list[int]]) -> Iterator[Tensor]:
        for batch in batches:
            pixels = torch.cat([samples[int(drawings.rows[entry])].world_pixel_values for entry in batch])
            yield source.encode(pixels, [keys[entry] for entry in batch])

    manifest = _manifest(model, source, samples, len(drawings), shape=tuple(next(iter(encode([[0]]))).shape[1:]))
    write_features(output / manifest.feature, manifest, drawings, encode, progress=False)


def _manifest(
    model: TheWorld, source: WorldSource, samples: OSDSamples, entries: int, *, shape: tuple[int, ...]
) -> Manifest:
    facts = {name: str(value) for name, value in source.fingerprint().items()}
    return Manifest(
        feature="world_latents",
        encoder=encoder_facts(model, "world_latents", precision=PRECISION) | facts,
        preprocessing_sha256=preprocessing_sha256(samples.processor, "world_latents", region_style="box"),
        index_sha256=samples.index.pictures_sha256,
        dtype="float32",
        shape=shape,
        entries=entries,
        entries_per_shard=entries,
        batch_size=BATCH,
        made_with=f"experiments.motion_control, torch {torch.__version__}",
    )

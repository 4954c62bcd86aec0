"""The interface of a world source: images → latents, frozen, reproducible, and with a name for what made them.

A source is one file in this folder: a `WorldSource`, and the `SourceSettings` that say how it is asked for. Whoever
needs one finds it by the `kind` of its settings (`attach.known_settings`); `frame.py` is the shortest.

A source is no part of the model: it has no parameters that train, and an export does not carry it. A model of one frame
needs none, its own world encoder is enough; one of several frames reads latents from a cache (`theworld data cache`),
or from a source that was attached to it.

W images · C latent channels · F latent frames of each, the present one first
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor

from theworld.models.world_encoder import WorldEncoder

Facts = dict[str, str | int | float]
"""What decides the latents besides the image: weights by their hash, settings by their value."""


class WorldSource(ABC):
    """Makes latents of images.

    Attributes:
        latent_channels: C.
        num_frames: F, 1 + the number of world steps.
    """

    latent_channels: int
    num_frames: int

    @abstractmethod
    def encode(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Latents of RGB frames.

        Args:
            pixels: float[W, 3, h, w] in [-1, 1].
            keys: A name for each image. What is random in its latents follows from the source's seed and this name
                alone, not from the other images of the call.

        Returns:
            float32[W, C, F, h/8, w/8], without a gradient, on the device of `pixels`.
        """

    @abstractmethod
    def fingerprint(self) -> Facts:
        """Two sources with the same fingerprint make the same latents of the same image under the same key."""

    @abstractmethod
    def to(self, device: torch.device | str) -> WorldSource:
        """Move the weights; gives itself."""


class SourceSettings(ABC):
    """What is asked of a source: a frozen dataclass of numbers, which name their own type.

    Attributes:
        kind: Name of the source, in fingerprints and in exports of models that were trained on it.
    """

    kind: ClassVar[str]
    known: ClassVar[dict[str, type[SourceSettings]]] = {}

    def __init_subclass__(cls) -> None:
        """Settings of the same kind take each other's place, so that a module may be loaded again."""
        SourceSettings.known[cls.kind] = cls

    @classmethod
    def from_facts(cls, facts: Mapping[str, str]) -> Self:
        """Those of a fingerprint that was kept as text."""
        read = {"int": int, "float": float}
        return cls(**{field.name: read[str(field.type)](facts[field.name]) for field in fields(cast(Any, cls))})

    @abstractmethod
    def source(
        self, vae: WorldEncoder, cosmos_model: str, *, text: str | Path | None, dtype: torch.dtype
    ) -> WorldSource:
        """The source that these settings describe.

        Args:
            vae: The model's own world encoder.
            cosmos_model: Folder or Hub name of the Cosmos model that it is from.
            text: A safetensors file of text embeddings, for sources that take one.
            dtype: Of weights that are loaded.

        Raises:
            ValueError: There is no such source, or it cannot use what it is given.
        """


def content_keys(pixels: Tensor) -> list[str]:
    """A key for each image that follows from its pixels; waits for the device.

    Args:
        pixels: float[W, 3, h, w].
    """
    arrays = pixels.detach().to("cpu", torch.float32).contiguous().numpy()
    return [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]


def noise(shape: Sequence[int], *, seed: int, key: str) -> Tensor:
    """Standard normal numbers that follow from seed and key alone; float32[shape], drawn on the CPU.

    Args:
        shape: Of one image's noise.
        seed: Of the source.
        key: Of the image.
    """
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(tuple(shape), generator=generator)

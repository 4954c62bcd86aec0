"""Lets a run look at images itself where no cache is read: in tests, predictions, fixed prompts, some validations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from theworld.models.loading import cosmos_of
from theworld.models.theworld import TheWorld
from theworld.models.world_sources.attach import attach_trained_source, needs_source
from theworld.models.world_sources.source import Facts, WorldSource
from theworld.training.module import TheWorldModule


class WorldSourceOfRun(Callback):
    """Attaches the source of the cache that the run trains on, or of the export that it starts from.

    Only where the model's own world encoder is not enough (several frames, hidden states). Nothing is loaded before the
    first image is looked at; from then on the denoiser stays on the device.

    Args:
        cosmos_model: Folder or Hub name with the denoiser; by default that of the model.
        text: File of the text embeddings the cache was made with, if there were any.
    """

    def __init__(self, *, cosmos_model: str | None = None, text: str | None = None) -> None:
        self.cosmos_model = cosmos_model
        self.text = text

    def on_fit_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Attach before anything of the fit answers or validates."""
        self._attach(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Attach in a run that only validates."""
        self._attach(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Attach before the test questions, which never read a cache."""
        self._attach(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Attach, as for tests."""
        self._attach(pl_module)

    def _attach(self, pl_module: TheWorldModule) -> None:
        encoder = pl_module.world.cosmos_encoder
        if encoder is None or encoder.source is not None or not needs_source(pl_module.world.config):
            return
        place = partial(cosmos_of, pl_module.base, self.cosmos_model or pl_module.cosmos_model)
        load = partial(attach_trained_source, pl_module.world, text=self.text, dtype=pl_module.load_dtype)
        encoder.source = _AtFirstImage(pl_module.world, lambda: load(place()))


class _AtFirstImage(WorldSource):
    """In place of a source until there is an image: then it is loaded, and takes this one's place in the model."""

    def __init__(self, model: TheWorld, load: Callable[[], None]) -> None:
        assert model.cosmos_encoder is not None
        self.latent_channels = model.config.latent_channels
        self.num_frames = 1 + model.config.num_world_steps
        self._encoder = model.cosmos_encoder
        self._load = load

    def encode(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """As `WorldSource.encode` has it."""
        return self._loaded().encode(pixels, keys)

    def fingerprint(self) -> Facts:
        """As `WorldSource.fingerprint` has it."""
        return self._loaded().fingerprint()

    def to(self, device: torch.device | str) -> _AtFirstImage:
        """Nothing is to be moved yet."""
        return self

    def _loaded(self) -> WorldSource:
        if self._encoder.source is self:
            rank_zero_info(
                "An image without cached latents: loading the denoiser, which looks at it (seconds an image)"
            )
            self._load()
        assert self._encoder.source is not None
        return self._encoder.source

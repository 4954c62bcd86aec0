"""Giving a model the world source it was trained with, and refusing another one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import torch

from theworld.models import world_sources
from theworld.models.configuration import TheWorldConfig
from theworld.models.theworld import TheWorld
from theworld.models.world_sources.source import SourceSettings, WorldSource


def known_settings() -> dict[str, type[SourceSettings]]:
    """Settings of each source that makes latents of one image, by their `kind`: those in the files of this folder."""
    for file in iter_modules(world_sources.__path__):
        import_module(f"{world_sources.__name__}.{file.name}")
    return dict(SourceSettings.known)


def needs_source(config: TheWorldConfig) -> bool:
    """Whether a model cannot make the latents of an image by itself."""
    return config.enable_world and bool(config.num_world_steps or config.world_source)


def attach_source(model: TheWorld, source: WorldSource) -> None:
    """Let `source` make the latents of the model's images from now on.

    Args:
        model: With a world branch.
        source: Moved to the model's device.

    Raises:
        ValueError: The model has no world branch, or was trained on the latents of another source.
    """
    if model.cosmos_encoder is None:
        raise ValueError("found a model with enable_world=False, expected a world branch to attach a source to")
    refuse_other_source(model.config.world_source, {name: str(value) for name, value in source.fingerprint().items()})
    model.cosmos_encoder.source = source.to(model.device)


def refuse_other_source(trained: dict[str, str] | None, now: dict[str, str]) -> None:
    """Compare the fingerprint a model was trained with, if it is known, with the present one.

    Raises:
        ValueError: They differ; says where.
    """
    if trained is None or trained == now:
        return
    differing = sorted(name for name in trained.keys() | now.keys() if trained.get(name) != now.get(name))
    told = "; ".join(f"{name} (trained {trained.get(name)}, now {now.get(name)})" for name in differing)
    raise ValueError(
        f"found another world source than the model was trained with: {told}. Use the Cosmos model, settings, text and "
        "type of weights of the cache it was trained on"
    )


def attach_trained_source(model: TheWorld, cosmos_model: str, *, text: str | Path | None, dtype: torch.dtype) -> None:
    """Build the source that an export names, and attach it.

    Args:
        model: An export of several frames.
        cosmos_model: Folder or Hub name with the denoiser.
        text: File of text embeddings, if it was trained with one.
        dtype: Of the denoiser's weights.

    Raises:
        ValueError: Its source cannot be built of one image, or is another one.
    """
    facts = model.config.world_source or {}
    kind, known = facts.get("kind", "a source it does not name"), known_settings()
    if model.cosmos_encoder is None or kind not in known:
        raise ValueError(
            f"found a model of num_world_steps={model.config.num_world_steps} whose latents came from {kind!r}, "
            f"expected one of {sorted(known)}: others cannot be made of one image; give the model world_latents"
        )
    settings = known[kind].from_facts(facts)
    attach_source(model, settings.source(model.cosmos_encoder.vae, cosmos_model, text=text, dtype=dtype))

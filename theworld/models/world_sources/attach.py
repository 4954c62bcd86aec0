"""Giving a model the world source it was trained with, and refusing another one."""

from __future__ import annotations

from pathlib import Path

import torch

from theworld.models.theworld import TheWorld
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.hidden_states import HiddenStates, HiddenStatesSettings
from theworld.models.world_sources.rollout import Rollout, RolloutSettings
from theworld.models.world_sources.source import WorldSource

SourceSettings = RolloutSettings | HiddenStatesSettings

SETTINGS: dict[str, type[RolloutSettings] | type[HiddenStatesSettings]] = {
    "rollout": RolloutSettings,
    "hidden_states": HiddenStatesSettings,
}
"""Settings of each source that makes latents of one image, by the `kind` of its fingerprint."""


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
    kind = facts.get("kind", "a source it does not name")
    if model.cosmos_encoder is None or kind not in SETTINGS:
        raise ValueError(
            f"found a model of num_world_steps={model.config.num_world_steps} whose latents came from {kind!r}, "
            f"expected one of {sorted(SETTINGS)}: others cannot be made of one image; give the model world_latents"
        )
    settings = SETTINGS[kind].from_facts(facts)
    attach_source(model, source_of(model.cosmos_encoder.vae, cosmos_model, settings, text=text, dtype=dtype))


def source_of(
    vae: WorldEncoder, cosmos_model: str, settings: SourceSettings, *, text: str | Path | None, dtype: torch.dtype
) -> WorldSource:
    """The source that has such settings.

    Args:
        vae: Of the same Cosmos model.
        cosmos_model: As in `attach_trained_source`, like the two below.
        settings: Decide which source.
        text: See there.
        dtype: See there.
    """
    if isinstance(settings, RolloutSettings):
        return Rollout.from_pretrained(vae, cosmos_model, settings, text=text, dtype=dtype)
    return HiddenStates.from_pretrained(vae, cosmos_model, settings, text=text, dtype=dtype)

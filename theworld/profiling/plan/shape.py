"""The shape of the model that a config names: from its base if that is here, else Gemma 3 4B's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from transformers import Gemma3Config, PretrainedConfig

from theworld.assets import resolve
from theworld.models.configuration import ConfigFields, TheWorldConfig, VaeConfig
from theworld.models.loading import cosmos_of
from theworld.training.module import TheWorldModule

_OPTIONS = (
    "world_projection_mode",
    "projection_architecture",
    "world_image_size",
    "num_world_steps",
    "max_world_steps",
    "world_tokens_per_frame",
    "world_latent_shape",
    "bidirectional_world",
)


def shape_of(module: TheWorldModule) -> tuple[TheWorldConfig, str]:
    """The model's config, and where it comes from; nothing is fetched.

    Args:
        module: With the settings of a run.

    Raises:
        ValueError: The base is here, and is no Gemma 3 and no export.
    """
    options = cast(ConfigFields, {name: getattr(module, name) for name in _OPTIONS})
    options["enable_world"] = module.enable_world
    try:
        stored, _ = PretrainedConfig.get_config_dict(resolve(module.base), local_files_only=True)
    except OSError:
        note = f"preset gemma3-4b, since {module.base} is not here"
        return TheWorldConfig.preset("gemma3-4b", **options), note
    kind = stored.get("model_type")
    if kind == TheWorldConfig.model_type:
        return TheWorldConfig.from_dict(stored | dict(options)), f"config.json of the export {module.base}"
    if kind != "gemma3":
        raise ValueError(
            f"found model_type {kind!r} in {module.base}, expected 'gemma3' (a base) or 'theworld' (an export)"
        )
    gemma = Gemma3Config.from_dict(stored)
    vae = Path(cosmos_of(module.base, module.cosmos_model)) / "vae" / "config.json"
    if vae.is_file():
        fields = {k: v for k, v in json.loads(vae.read_text()).items() if not k.startswith("_")}
        options["vae_config"] = cast(VaeConfig, fields)
    ids = _free_ids(gemma)
    options["start_of_world_token_id"], options["world_token_id"], options["end_of_world_token_id"] = ids
    options["gemma_config"] = gemma
    return TheWorldConfig(**options), f"config.json of the base {module.base}"


def _free_ids(gemma: Gemma3Config) -> list[int]:
    """Three ids that mean nothing else: which they are changes no memory."""
    taken = {gemma.image_token_id, gemma.boi_token_index, gemma.eoi_token_index, 0, 1, 2, 3}
    return [number for number in range(gemma.text_config.vocab_size - 1, 0, -1) if number not in taken][:3]

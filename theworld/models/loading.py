"""Where a `TheWorld` comes from: a Gemma 3 base with a Cosmos VAE, or an export of ours.

Every weight is accounted for. A missing one is an error that names it, an unexpected one is logged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from transformers import AutoTokenizer, Gemma3ForConditionalGeneration, PretrainedConfig

from theworld.assets import resolve
from theworld.models.configuration import ConfigFields, TheWorldConfig
from theworld.models.cosmos_encoder import CosmosEncoder, new_projector
from theworld.models.world_encoder import WorldEncoder

if TYPE_CHECKING:
    from theworld.models.theworld import TheWorld

DEFAULT_COSMOS_MODEL = "nvidia/Cosmos-Predict2-2B-Video2World"
WORLD_TOKENS = {
    "start_of_world_token_id": "<unused0>",
    "world_token_id": "<unused1>",
    "end_of_world_token_id": "<unused2>",
}
_READING = {
    "attn_implementation": "sdpa",
    "trust_remote_code": False,
    "use_safetensors": True,
    "output_loading_info": True,
}
"""How transformers reads weights, of a base or an export: no pickles, no code of others, and an account of the keys."""
_TRAINED_WITH = (
    "world_projection_mode",
    "projection_architecture",
    "world_image_size",
    "num_world_steps",
    "world_latent_shape",
    "bidirectional_world",
)
"""Settings an export keeps: with another value its weights would read something they were not trained on.

Not `world_tokens_per_frame`: means of cells are what a projector of cells can read, and to ask one model with several
budgets is the point of them. A budget that it was not trained with is warned of, and written down.
"""

logger = logging.getLogger(__name__)


def load(
    cls: type[TheWorld],
    load_export_weights: Callable[..., tuple[TheWorld, dict[str, set[str]]]],
    name_or_path: str | os.PathLike[str],
    *,
    cosmos_model: str | None,
    enable_world: bool,
    dtype: torch.dtype | None,
    revision: str | None,
    cosmos_revision: str | None,
    options: Mapping[str, object],
) -> TheWorld:
    """The model at `name_or_path`, whichever of the two kinds that is.

    Args:
        cls: The model class.
        load_export_weights: `PreTrainedModel.from_pretrained` bound to `cls`.
        name_or_path: Directory, Hub name or `theworld-tiny`.
        cosmos_model: Source of the world encoder of a base.
        enable_world: Whether the model gets a world branch.
        dtype: Of every parameter; `None`: as stored.
        revision: Hub revision of `name_or_path`.
        cosmos_revision: Hub revision of `cosmos_model`.
        options: Fields of `TheWorldConfig`; `None` means "not set by the caller".
    """
    path = resolve(os.fspath(name_or_path))
    stored, _ = PretrainedConfig.get_config_dict(path, revision=revision)
    chosen = cast(ConfigFields, {k: v for k, v in options.items() if v is not None})
    if "auto_map" in stored:
        raise ValueError(f"found auto_map in {path}/config.json, expected none: a model never brings its own code")
    kind = stored.get("model_type")
    if kind == TheWorldConfig.model_type:
        if cosmos_model is not None:
            raise ValueError(f"found cosmos_model={cosmos_model!r} for the export {path}, which has its own; omit it")
        config = _export_config(path, stored, enable_world, chosen)
        return _from_export(load_export_weights, path, config, dtype, revision)
    if kind == "gemma3":
        cosmos = cosmos_of(path, cosmos_model)
        return _from_base(cls, path, cosmos, enable_world, dtype, revision, cosmos_revision, chosen)
    raise ValueError(f"found model_type {kind!r} in {path}, expected 'gemma3' (a base) or 'theworld' (an export)")


def is_export(base: str) -> bool:
    """Whether `base` is an export of ours, with a world encoder of its own."""
    stored, _ = PretrainedConfig.get_config_dict(resolve(base))
    return bool(stored.get("model_type") == TheWorldConfig.model_type)


def cosmos_of(base: str, cosmos_model: str | None) -> str:
    """Where the parts of a Cosmos model are read: as chosen, or beside the base's own, or NVIDIA's repository."""
    if cosmos_model:
        return resolve(cosmos_model)
    path = resolve(base)
    return path if (Path(path) / "vae" / "config.json").is_file() else DEFAULT_COSMOS_MODEL


@torch.no_grad()
def text_rms(gemma: Gemma3ForConditionalGeneration) -> float:
    """Root mean square of the text embeddings as the language model sees them: the table's × √hidden."""
    table = gemma.get_input_embeddings().weight  # (V, D)
    total = sum(float(rows.float().square().sum(dtype=torch.float64)) for rows in table.split(16_384))
    return (total / table.numel() * table.shape[1]) ** 0.5


def _from_base(
    cls: type[TheWorld],
    path: str,
    cosmos: str,
    enable_world: bool,
    dtype: torch.dtype | None,
    revision: str | None,
    cosmos_revision: str | None,
    options: ConfigFields,
) -> TheWorld:
    gemma, info = Gemma3ForConditionalGeneration.from_pretrained(
        path, dtype=dtype if dtype is not None else "auto", revision=revision, **_READING
    )
    _check_keys(path, info)
    fields: ConfigFields = {**options, "gemma_config": gemma.config, "enable_world": enable_world}
    if enable_world:
        vae = WorldEncoder.from_pretrained(cosmos, revision=cosmos_revision, dtype=gemma.dtype)
        fields = {**fields, "vae_config": vae.config, **_world_token_ids(path, revision)}
    config = TheWorldConfig(**fields)
    with torch.device("meta"):  # a skeleton without memory, whose parts are then replaced by the loaded ones
        model = cls(config)
    model.gemma = gemma
    if enable_world:
        projector = new_projector(config, target_rms=text_rms(gemma))
        for parameter in projector.parameters():
            parameter.data = parameter.data.to(gemma.dtype)
        model.cosmos_encoder = CosmosEncoder(
            vae, projector=projector, image_size=config.world_image_size, num_world_steps=config.num_world_steps
        )
        logger.warning("The world projector is new: %s does not have one. Train it before use.", path)
    model.generation_config = gemma.generation_config
    return model


def _from_export(
    load_export_weights: Callable[..., tuple[TheWorld, dict[str, set[str]]]],
    path: str,
    config: TheWorldConfig,
    dtype: torch.dtype | None,
    revision: str | None,
) -> TheWorld:
    model, info = load_export_weights(
        path, config=config, dtype=dtype if dtype is not None else "auto", revision=revision, **_READING
    )
    if not config.enable_world:
        info["unexpected_keys"] = {k for k in info["unexpected_keys"] if not k.startswith("cosmos_encoder.")}
    _check_keys(path, info)
    if dtype is not None:  # transformers makes the Gemma inside in the type that its own stored config names
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
    return model


def _export_config(path: str, stored: dict[str, object], enable_world: bool, options: ConfigFields) -> TheWorldConfig:
    if enable_world and not stored["enable_world"]:
        raise ValueError(f"{path} was exported without a world branch; load it with enable_world=False")
    kept = {*_TRAINED_WITH, *(("max_world_steps",) if stored["num_world_steps"] else ())}  # rows of an embedding
    for name, wanted in options.items():
        if name in kept and wanted != stored[name]:
            raise ValueError(
                f"found {name}={wanted!r}, expected {stored[name]!r}, which {path} was trained with; leave {name} out, "
                f"or give it that value (model.{name} in a config)"
            )
    config = TheWorldConfig.from_dict(stored | dict(options) | {"enable_world": enable_world})
    if enable_world and "world_tokens_per_frame" in options:
        trained, now = TheWorldConfig.from_dict(dict(stored)).budgets_trained_with, config.world_tokens_per_frame
        if now not in trained:
            logger.warning("%s: is read with %s world tokens a frame, and was trained with %s only", path, now, trained)
            config.trained_world_tokens_per_frame = trained
    return config


def _check_keys(path: str, info: Mapping[str, set[str]]) -> None:
    missing, broken = sorted(info["missing_keys"]), sorted(str(k) for k in info["mismatched_keys"])
    if missing or broken:
        raise ValueError(
            f"{path}: missing keys {missing}, mismatched keys {broken}; expected every weight of the model; the "
            "files are incomplete or belong to another model"
        )
    if info["unexpected_keys"]:
        logger.warning("%s: unexpected keys %s", path, sorted(info["unexpected_keys"]))


def _world_token_ids(path: str, revision: str | None) -> ConfigFields:
    """Ids of the three world tokens in the base's own tokenizer."""
    vocabulary = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False).get_vocab()
    absent = [token for token in WORLD_TOKENS.values() if token not in vocabulary]
    if absent:
        raise ValueError(
            f"{path}: the tokenizer lacks {absent}, expected all of {list(WORLD_TOKENS.values())}; use a Gemma 3 "
            "tokenizer, or enable_world=False"
        )
    return cast(ConfigFields, {field: vocabulary[token] for field, token in WORLD_TOKENS.items()})

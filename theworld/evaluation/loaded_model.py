"""A model to be evaluated with its processor, and what identifies both: hashes of weights, settings and tokenizer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PretrainedConfig
from transformers.utils import cached_file

from theworld.assets import resolve
from theworld.data.indexing.header import tokenizer_sha256
from theworld.data.pictures.blank import BlankImage
from theworld.data.processor import TheWorldProcessor
from theworld.models.configuration import TheWorldConfig
from theworld.models.loading import cosmos_of
from theworld.models.theworld import TheWorld
from theworld.models.world_sources.attach import attach_trained_source, needs_source


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """What answers.

    Attributes:
        model: In evaluation mode, on its device.
        processor: With the placeholders that the model expects.
        name: As it was asked for.
        identity: sha256, hexadecimal, of `weights` (every safetensors file), `config` and `tokenizer`.
    """

    model: TheWorld
    processor: TheWorldProcessor
    name: str
    identity: dict[str, str]


def load_model(
    name: str,
    *,
    dtype: torch.dtype,
    device: torch.device,
    enable_world: bool | None = None,
    blank_image: BlankImage | None = None,
    revision: str | None = None,
    cosmos_model: str | None = None,
    text: str | None = None,
    world_tokens_per_frame: int | None = None,
) -> LoadedModel:
    """An export of ours, or a Gemma 3 base without world branch.

    Args:
        name: Directory, Hub name, or `theworld-tiny`.
        dtype: Of every weight.
        device: Where it computes.
        enable_world: By default as the export was made; False leaves an export's branch out. A base has none.
        blank_image: Of a control: the tower that sees plain colours, as the export was trained.
        revision: Commit of a Hub repository.
        cosmos_model: Where the denoiser of a model of several frames is read; default: NVIDIA's repository.
        text: The text embeddings it was trained with, if there were any.
        world_tokens_per_frame: Another number of world tokens a frame than the export has.

    Raises:
        ValueError: The world branch of a base is asked for: its projector would be random.
    """
    path = resolve(name)
    stored, _ = PretrainedConfig.get_config_dict(path, revision=revision)
    is_export = stored.get("model_type") == TheWorldConfig.model_type
    if enable_world and not is_export:
        raise ValueError(
            f"found enable_world=true for {name}, which is a base: its world projector would be random, and so would "
            "every answer; train it (theworld fit), and evaluate the export"
        )
    has_world = bool(stored.get("enable_world")) if enable_world is None else enable_world
    if world_tokens_per_frame is not None and not (is_export and has_world):
        raise ValueError(
            f"found world_tokens_per_frame={world_tokens_per_frame} for {name} without a world branch, expected none; "
            "leave it out, or evaluate an export with its branch"
        )
    model = TheWorld.from_pretrained(
        path,
        enable_world=is_export and has_world,
        dtype=dtype,
        revision=revision,
        world_tokens_per_frame=world_tokens_per_frame,
    )
    model.to(device).eval()
    config = model.config
    if needs_source(config):
        attach_trained_source(model, cosmos_of(path, cosmos_model), text=text, dtype=dtype)
    processor = TheWorldProcessor.from_pretrained(
        path,
        num_world_tokens=config.num_world_tokens if config.enable_world else 0,
        world_image_size=config.world_image_size,
        enable_world=config.enable_world,
        blank_image=blank_image,
        revision=revision,
    )
    identity = _file_hashes(_folder(path, revision)) | {"tokenizer": tokenizer_sha256(processor.tokenizer)}
    return LoadedModel(model=model, processor=processor, name=name, identity=identity)


def _folder(path: str, revision: str | None) -> Path:
    """Where the files lie, which are on this machine once the model is loaded."""
    return Path(cached_file(path, "config.json", revision=revision)).parent


def _file_hashes(folder: Path) -> dict[str, str]:
    weights = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        weights.update(f"{file.relative_to(folder).as_posix()} {digest}\n".encode())
    config = hashlib.sha256((folder / "config.json").read_bytes())
    return {"weights": weights.hexdigest(), "config": config.hexdigest()}

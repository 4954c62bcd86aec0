"""What a resumed run must find as it was: settings, tokenizer, image processor and code; and how a difference reads.

The rows of the data, their order and their weights are not here: the loader compares those itself
(`theworld.data.packing.loader`). Devices, workers, limits of steps, and what is logged, saved or exported may change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

from lightning.pytorch import Trainer

import theworld
from theworld.data.indexing.header import tokenizer_sha256
from theworld.data.processor import TheWorldProcessor
from theworld.training.module import TheWorldModule

Fingerprint = dict[str, dict[str, str]]
"""Section → name → value as text; plain data, as a checkpoint must be."""

LIBRARIES = ("torch", "transformers", "lightning", "diffusers", "numpy", "Pillow")
"""Libraries whose version can change a number."""

_MODEL = (
    *("base", "cosmos_model", "enable_world", "world_projection_mode", "projection_architecture", "world_image_size"),
    *("num_world_steps", "world_tokens_per_frame", "bidirectional_world", "attention_backend", "load_dtype"),
    *("random_world_tokens_per_frame", "world_latent_shape"),
    *("optimizer_choice", "low_bit_base", "weight_decay", "betas"),
)
_DATA = (
    *("max_seq_length", "region_style", "num_world_tokens", "enable_world", "world_image_size", "blank_image"),
    "world_position",
)
_TRAINER = ("precision", "gradient_clip_val", "gradient_clip_algorithm")


def fingerprint(trainer: Trainer, pl_module: TheWorldModule) -> Fingerprint:
    """Of the run that is set up."""
    data = trainer.datamodule
    found = {
        "model": {name: _text(getattr(pl_module, name)) for name in _MODEL},
        "stages": _stages(pl_module),
        "data": {name: _text(getattr(data, name)) for name in _DATA if hasattr(data, name)},
        "trainer": {name: _text(getattr(trainer, name)) for name in _TRAINER},
        "code": code(),
    }
    processor = getattr(data, "processor", None)
    return found | ({"processor": processor_hashes(processor)} if processor is not None else {})


def processor_hashes(processor: TheWorldProcessor) -> dict[str, str]:
    """sha256 of what turns text and images into numbers."""
    return {
        "tokenizer": tokenizer_sha256(processor.tokenizer),
        "chat_template": _sha256(_text(processor.tokenizer.chat_template)),
        "image_processor": _sha256(processor.image_processor.to_json_string()),
    }


@cache
def code() -> dict[str, str]:
    """The package's version and the hash of its source, with or without git; and versions of libraries."""
    root = Path(theworld.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    own = {"theworld": theworld.__version__, "source_sha256": digest.hexdigest()}
    return own | {name: version(name) for name in LIBRARIES}


def differences(saved: Fingerprint, found: Fingerprint) -> list[str]:
    """One line for each value that is not as it was saved; none if all are."""
    lines = []
    for section in dict.fromkeys([*saved, *found]):
        before, now = saved.get(section, {}), found.get(section, {})
        for name in dict.fromkeys([*before, *now]):
            was, is_now = before.get(name, "nothing"), now.get(name, "nothing")
            if was != is_now:
                lines.append(f"{section}.{name}: saved {was}, now {is_now}")
    return lines


def as_fingerprint(value: object) -> Fingerprint | None:
    """What a checkpoint holds, if it is one."""
    if not isinstance(value, Mapping):
        return None
    return {str(section): {str(k): str(v) for k, v in dict(part).items()} for section, part in value.items()}


def _stages(pl_module: TheWorldModule) -> dict[str, str]:
    schedule = pl_module.schedule
    stages = zip(schedule.names, schedule.stages, strict=True)
    values = {"order": ", ".join(schedule.names)}
    for name, stage in stages:
        # What is computed again in the backward pass is a matter of memory.
        settings = {key: value for key, value in asdict(stage).items() if key != "recompute"}
        values |= {f"{name}.{key}": _text(value) for key, value in settings.items()}
    return values


def _text(value: object) -> str:
    return str(value)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

"""What a processor reads of a base or an export: ids of special tokens, and settings in its JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from theworld.data.pictures.blank import BlankImage
from theworld.data.world_block import WorldPosition


def token_id(tokenizer: PreTrainedTokenizerBase, token: str | None) -> int:
    """The id of a special token.

    Raises:
        ValueError: The tokenizer does not have it.
    """
    found = tokenizer.convert_tokens_to_ids(token) if token is not None else None
    if not isinstance(found, int) or (found == tokenizer.unk_token_id and token != tokenizer.unk_token):
        raise ValueError(
            f"the tokenizer has no token {token!r}, expected Gemma 3's special tokens; "
            "use Gemma's tokenizer or name another token."
        )
    return found


def num_image_tokens(name: str, revision: str | None) -> int:
    """From `processor_config.json`, else from the model's `config.json`."""
    for file, key in (("processor_config.json", "image_seq_length"), ("config.json", "mm_tokens_per_image")):
        path = cached_file(name, file, revision=revision, _raise_exceptions_for_missing_entries=False)
        if path is None:
            continue
        config = json.loads(Path(path).read_text())
        for holder in (config, config.get("gemma_config", {})):
            if key in holder:
                return int(holder[key])
    raise ValueError(
        f"{name}: found no number of image tokens, expected image_seq_length in processor_config.json or "
        "mm_tokens_per_image in config.json."
    )


def recorded_blank_image(name: str, revision: str | None, *, chosen: BlankImage | None) -> BlankImage:
    """What `blank_image` is to be: as chosen, or `none` where nothing else is recorded.

    Args:
        name: Directory or Hub name of a base or of an export of ours.
        revision: Commit of a Hub repository.
        chosen: By the caller; None if nothing was said.

    Raises:
        ValueError: The export was trained with blank pictures, and the caller did not say whether it is to see such.
    """
    recorded = _recorded(name, revision, "blank_image", default="none")
    if chosen is None and recorded != "none":
        raise ValueError(
            f"{name}: was trained with blank_image={recorded!r}, and found no choice of how it is to be used, expected "
            f"one; give blank_image={recorded!r} (data.blank_image), or 'none' for pictures as they are."
        )
    return cast(BlankImage, recorded) if chosen is None else chosen


def recorded_world_position(name: str, revision: str | None, *, chosen: WorldPosition | None) -> WorldPosition:
    """Where the world block stands: as recorded in an export, else as chosen, else `first`.

    Args:
        name: Directory or Hub name of a base or of an export of ours.
        revision: Commit of a Hub repository.
        chosen: By the caller; None if nothing was said.

    Raises:
        ValueError: The export was trained with the world block elsewhere than chosen.
    """
    recorded = _recorded(name, revision, "world_position", default="first")
    if chosen not in (None, recorded) and recorded != "first":
        raise ValueError(
            f"{name}: was trained with world_position={recorded!r}, found the choice {chosen!r}, expected the same; "
            "leave world_position (data.world_position) out"
        )
    return cast(WorldPosition, recorded if chosen is None else chosen)


def _recorded(name: str, revision: str | None, key: str, *, default: str) -> str:
    path = cached_file(name, "processor_config.json", revision=revision, _raise_exceptions_for_missing_entries=False)
    return default if path is None else str(json.loads(Path(path).read_text()).get(key, default))

"""Is a part of a diffusers repository on this disk? Asked before diffusers is, whose answer does not say which part."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = "diffusion_pytorch_model.safetensors"


def check_part(name_or_path: str, part: str | None, *, config: str = "config.json", weights: bool = True) -> None:
    """Refuse a local folder that lacks a file of a part; a name on the Hub is for diffusers to look up.

    Args:
        name_or_path: The repository.
        part: Its folder in the repository; None: the repository itself.
        config: The part's settings.
        weights: Whether it has weights, whole or in shards with an index.

    Raises:
        ValueError: A file is not there; names it.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        return
    place = folder / (part or "")
    accepted = [(config,), *([(WEIGHTS, f"{WEIGHTS}.index.json")] if weights else [])]
    for names in accepted:
        if not any((place / name).is_file() for name in names):
            raise ValueError(
                f"found no {place / names[0]}, expected it: of a Cosmos-Predict2 repository a frame needs the part "
                "vae, a rollout and hidden states transformer and scheduler as well; download them, too"
            )

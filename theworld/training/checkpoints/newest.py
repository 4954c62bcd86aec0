"""Which checkpoint of a directory `--ckpt_path=last` means: the newest that verifies."""

from __future__ import annotations

import os
from pathlib import Path

from theworld.data.indexing.table import write_durably
from theworld.training.checkpoints.directory import remove_tree, sealed_at, verify_checkpoint

LATEST = "LATEST"
"""File that holds the name of the checkpoint saved last, for people and scripts."""


def name_latest(path: Path) -> None:
    """Write the name of `path` into LATEST beside it; atomic."""
    write_durably(path.parent / LATEST, f"{path.name}\n".encode())


def link_checkpoint(link: Path, path: Path) -> None:
    """Let `link` lead to `path`, its neighbour; atomic. A checkpoint of that very name steps aside."""
    if link.absolute() == path.absolute():
        return
    if link.exists() and not link.is_symlink():
        os.replace(link, link.with_name(f"{link.stem}.replaced{link.suffix}"))
    draft = link.with_name(f".{link.name}.draft")
    remove_tree(draft)
    draft.symlink_to(path.name)
    os.replace(draft, link)


def newest_checkpoint(folder: Path, suffix: str = ".ckpt") -> tuple[Path | None, list[str]]:
    """The newest checkpoint in `folder` that verifies, and why newer ones were skipped, one reason each.

    The newest is the one written last. LATEST decides between equal times only: a kill may come before it is written.

    Returns:
        None and no reasons if there is no checkpoint at all.

    Raises:
        ValueError: There are checkpoints, and none verifies. Beginning anew is not for us to decide.
    """
    skipped: list[str] = []
    for path in _newest_first(folder, suffix):
        if path.is_file():
            skipped.append(f"{path}: a single file has no hashes to verify; name it with --ckpt_path to take it anyway")
            continue
        try:
            verify_checkpoint(path)
        except (ValueError, OSError) as error:
            skipped.append(str(error))
            continue
        return path, skipped
    if skipped:
        reasons = "\n  ".join(skipped)
        raise ValueError(
            f"{folder}: found {len(skipped)} checkpoints, expected at least one that verifies; name a good one with "
            f"--ckpt_path, or begin anew without it:\n  {reasons}"
        )
    return None, []


def _newest_first(folder: Path, suffix: str) -> list[Path]:
    if not folder.is_dir():
        return []
    latest = folder / LATEST
    named = latest.read_text(encoding="utf-8", errors="replace").strip() if latest.is_file() else ""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix == suffix and not path.name.startswith(".") and not path.is_symlink()
    ]
    return sorted(found, key=lambda path: (sealed_at(path), path.name == named), reverse=True)

"""Where a benchmark's files are: a local file or folder, or a commit of a data set on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def locate(
    path: str, patterns: Sequence[str], *, revision: str | None = None, cache_dir: str | Path | None = None
) -> list[Path]:
    """The files of a benchmark, sorted by name.

    Args:
        path: A file, a folder, or the name of a data set on the Hub, such as `nyu-visionx/CV-Bench`.
        patterns: Which files of a folder or data set, such as `test*.parquet`.
        revision: Commit of the data set, 40 hexadecimal digits; a branch may change between two evaluations.
        cache_dir: Where fetched files are kept; the Hub's own cache by default.

    Raises:
        ValueError: Nothing is there, or the Hub's data set has no commit named.
    """
    local = Path(path).expanduser()
    if local.exists() and revision is not None:
        raise ValueError(f"found revision {revision!r} for the local {path}, expected none; leave it out.")
    if local.is_file():
        return [local]
    folder = local if local.is_dir() else _fetched(path, patterns, revision, cache_dir)
    # As the Hub matches them: a pattern is for the whole path, and a star matches slashes, too.
    found = sorted({file for pattern in patterns for file in folder.glob(f"**/{pattern}") if file.is_file()})
    if not found:
        raise ValueError(f"{path}: found no file that matches {' or '.join(patterns)}; name the file itself.")
    return found


def sha256_of(paths: Sequence[Path]) -> dict[str, str]:
    """sha256 of files, by their names with the folder they lie in."""
    hashes = {}
    for path in paths:
        with path.open("rb") as file:
            hashes[f"{path.parent.name}/{path.name}"] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _fetched(path: str, patterns: Sequence[str], revision: str | None, cache_dir: str | Path | None) -> Path:
    if not _HUB_NAME.fullmatch(path):
        raise ValueError(f"{path}: no such file or folder, and no name of a data set on the Hub (owner/name).")
    if revision is None or not _COMMIT.fullmatch(revision):
        raise ValueError(
            f"found revision {revision!r} for {path}, expected a commit of 40 hexadecimal digits; take one from "
            f"https://huggingface.co/datasets/{path}/commits/main, so that every evaluation asks the same questions."
        )
    wanted = [form for pattern in patterns for form in (pattern, f"*/{pattern}")]
    try:
        return Path(
            snapshot_download(path, repo_type="dataset", revision=revision, allow_patterns=wanted, cache_dir=cache_dir)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{path} at {revision}: could not be fetched ({error}); check name and commit, or download it and give the "
            "folder."
        ) from error

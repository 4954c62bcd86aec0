"""A checkpoint as a directory of files with a manifest of their hashes. Written whole or not at all.

    step=500.ckpt/
        checkpoint.pt     what training needs to go on
        manifest.json     {"format": 1, "sealed_ns": ..., "files": {"checkpoint.pt": {"bytes": ..., "sha256": ...}}}

The files are written into a hidden draft beside the final name, never to a temporary folder, which may be of another
file system where a rename is a copy. The draft gets its final name only when all of it has reached the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from theworld.data.indexing.table import sync_folder, write_durably

MANIFEST = "manifest.json"
FORMAT = 1
_MANIFEST_BYTES = 1 << 20


class HashedFile:
    """A file open for writing that hashes what it is given: the hash is of what was meant, not of what came out.

    Attributes:
        bytes: Number of bytes so far.
        error: The first error of a write. PyTorch's writer covers it with one of its own.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.bytes = 0
        self.error: BaseException | None = None
        self._hash = hashlib.sha256()

    def write(self, content: bytes | memoryview) -> int:
        """Append `content`."""
        try:
            self.file.write(content)
        except BaseException as error:
            self.error = self.error or error
            raise
        self._hash.update(content)
        size = len(memoryview(content).cast("B"))
        self.bytes += size
        return size

    def flush(self) -> None:
        """Hand over to the operating system."""
        self.file.flush()

    @property
    def sha256(self) -> str:
        """Of everything written so far."""
        return self._hash.hexdigest()


class Draft:
    """The directory that is being written.

    Args:
        path: Where it lies until it is complete.

    Attributes:
        files: Bytes and sha256 of each file, as the manifest will have them.
    """

    def __init__(self, path: Path):
        self.path = path
        self.files: dict[str, dict[str, object]] = {}

    @contextmanager
    def open(self, name: str) -> Iterator[HashedFile]:
        """A new file, on disk when the block ends."""
        with (self.path / name).open("xb") as file:
            hashed = HashedFile(file)
            try:
                yield hashed
            except BaseException:
                if hashed.error is not None:
                    raise hashed.error from None
                raise
            file.flush()
            os.fsync(file.fileno())
        self.files[name] = {"bytes": hashed.bytes, "sha256": hashed.sha256}

    def seal(self) -> None:
        """Write the manifest of all files, and when that was; then the whole draft is on disk."""
        manifest = {"format": FORMAT, "sealed_ns": _after_all_in(self.path.parent), "files": self.files}
        write_durably(self.path / MANIFEST, (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())


@contextmanager
def new_checkpoint(path: Path) -> Iterator[Draft]:
    """Write the files of a checkpoint; it appears at `path` when the block ends without an error.

    What lay at `path` is kept, as `<stem>.replaced<suffix>`, until the new one is in its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Draft(draft_of(path))
    remove_tree(draft.path)  # of a save that was killed
    draft.path.mkdir()
    try:
        yield draft
        draft.seal()
        _publish(draft.path, path)
    except Exception:
        remove_tree(draft.path)
        raise


def verify_checkpoint(path: Path, *, share: tuple[int, int] = (0, 1)) -> None:
    """Compare every file of a checkpoint with its manifest. Nothing is unpickled.

    Args:
        path: The checkpoint.
        share: (k, n): hash only every n-th file, from the k-th on, because n processes share the work.

    Raises:
        ValueError: The manifest is missing or is none, a file is missing, is not named in it, or has other bytes.
    """
    expected = _read_manifest(path)
    found = {entry.name for entry in path.iterdir()} - {MANIFEST}
    if found != expected.keys():
        raise ValueError(
            f"{path}: found the files {sorted(found)}, expected {sorted(expected)} as {MANIFEST} says; "
            "the checkpoint is torn or was tampered with, take another one"
        )
    for number, (name, (size, sha256)) in enumerate(sorted(expected.items())):
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise ValueError(f"{file}: found a link or a folder, expected a file of the checkpoint; take another one")
        if file.stat().st_size != size:
            raise ValueError(
                f"{file}: found {file.stat().st_size} bytes, expected {size}; the checkpoint is torn, take another one"
            )
        if number % share[1] != share[0]:
            continue
        with file.open("rb") as opened:
            actual = hashlib.file_digest(opened, "sha256").hexdigest()
        if actual != sha256:
            raise ValueError(
                f"{file}: found sha256 {actual}, expected {sha256}; the checkpoint is damaged or was tampered with, "
                "take another one"
            )


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, or a link to one. It disappears at once; a kill leaves a hidden rest, never a half."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        rest = draft_of(path)
        remove_tree(rest)
        os.replace(path, rest)
        remove_tree(rest)


def sweep(folder: Path) -> None:
    """Remove what killed runs left behind in `folder`. Only for its one writer."""
    for rest in folder.glob(".*.draft"):
        remove_tree(rest)


def remove_tree(path: Path) -> None:
    """Remove a folder or a file, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _publish(draft: Path, path: Path) -> None:
    """Give the draft its final name. A rename cannot replace a folder with files, so an old one steps aside first."""
    replaced = path.with_name(f"{path.stem}.replaced{path.suffix}")
    if path.exists() or path.is_symlink():
        remove_checkpoint(replaced)
        os.replace(path, replaced)
    os.replace(draft, path)
    sync_folder(path.parent)
    remove_checkpoint(replaced)


def draft_of(path: Path) -> Path:
    """Where `path` lies while it is being written."""
    return path.with_name(f".{path.name}.draft")


def sealed_at(path: Path) -> int:
    """When a checkpoint was written, in nanoseconds: by its manifest, which a copy keeps, else by its folder's time."""
    file = path / MANIFEST
    try:
        if file.is_file():  # to open a pipe would be to wait for ever
            with file.open("rb") as opened:
                return int(json.loads(opened.read(_MANIFEST_BYTES))["sealed_ns"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        pass  # an older one, or one that will not verify
    return path.stat().st_mtime_ns


def _after_all_in(folder: Path) -> int:
    """Now, in nanoseconds, and later than all checkpoints in `folder`: clocks are set back, and machines' differ."""
    return max(time.time_ns(), *(sealed_at(manifest.parent) + 1 for manifest in folder.glob(f"*/{MANIFEST}")), 0)


def _read_manifest(path: Path) -> dict[str, tuple[int, str]]:
    """Bytes and sha256 of each file."""
    file = path / MANIFEST
    if file.is_symlink() or not file.is_file():
        raise ValueError(f"{path}: found no {MANIFEST}, expected one; the checkpoint is torn, take another one")
    with file.open("rb") as opened:
        content = opened.read(_MANIFEST_BYTES)
    try:
        manifest = json.loads(content)
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}")
        if not manifest["files"]:
            raise ValueError("no file")
        return {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{file}: found {type(error).__name__} {error} in it, expected a manifest of format {FORMAT}; the "
            "checkpoint is torn or of another version, take another one"
        ) from error

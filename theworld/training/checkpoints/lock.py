"""One run in a checkpoint directory: two would delete each other's checkpoints."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

NAME = ".lock"


def lock_directory(folder: Path) -> TextIO:
    """Hold `folder` until what is returned is closed; the system does that when the process dies.

    A file rather than the folder itself, because NFS locks only what is open for writing.

    Raises:
        ValueError: Another run holds it. Host and process id are named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = file.read(200).strip() or "unknown"
        file.close()
        raise ValueError(
            f"{folder}: found another run that writes checkpoints there ({holder}), expected none; wait for it, "
            "end it, or set trainer.default_root_dir to another folder"
        ) from error
    file.truncate(0)
    file.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
    file.flush()
    return file

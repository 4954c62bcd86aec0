"""A disk that fills up before a save and in the middle of one: the last good checkpoint stays, nothing half stays.

    unshare --mount --map-root-user python -m experiments.faults.disk_full --small_disk

mounts a tmpfs of 40 MB where no other process sees it, and trains there. Without `--small_disk` the folder given with
`--folder` is filled instead: a small disk of your own. Prints one line a case and writes `results/disk_full.csv`.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from experiments.faults.counting_run import count, loaded
from theworld.training.checkpoints import plugin
from theworld.training.checkpoints.directory import HashedFile

RESULTS = Path(__file__).parent / "results"
MEGABYTE = 1 << 20


def fill(folder: Path, *, leave: int) -> Path:
    """Write a file of zeros that leaves about `leave` bytes free."""
    path = folder / "filler"
    with path.open("ab") as file:
        while plugin.free_bytes(folder) > leave + 64 * 1024:
            file.write(b"\0" * min(MEGABYTE, plugin.free_bytes(folder) - leave))
            file.flush()
    return path


def before_a_save(folder: Path) -> None:
    """The space is asked for first."""
    fill(folder, leave=2 * MEGABYTE)


def in_a_save(folder: Path) -> None:
    """Something else takes the space after the question, when part of the checkpoint is written."""
    real, written = HashedFile.write, [0]

    def write(self: HashedFile, content: bytes | memoryview) -> int:
        written[0] += len(memoryview(content).cast("B"))
        if written[0] > 3 * MEGABYTE:
            fill(folder, leave=0)
        return real(self, content)

    HashedFile.write = write  # type: ignore[method-assign]  # this process is ours, and undone below


def try_case(folder: Path, fault: Callable[[Path], None], *, async_save: bool) -> dict[str, object]:
    """Train to a good checkpoint, let the disk fill up, train on until it fails, then free the disk and train on."""
    run = {"world_size": 1, "folder": folder, "async_save": async_save, "saved_every": 3}
    count(**run, steps=6)
    good = loaded(folder)
    real = HashedFile.write
    fault(folder)
    try:
        count(**run, steps=12)
        error = "none"
    except (OSError, ValueError) as raised:
        error = f"{type(raised).__name__}: {raised}".replace(str(folder), "…")[:110]
    finally:
        HashedFile.write = real  # type: ignore[method-assign]
    left = loaded(folder)
    drafts = len(list((folder / "saved").glob(".*.draft")))
    (folder / "filler").unlink()
    count(**run, steps=12)
    return {
        "saves": "async" if async_save else "sync",
        "fault": fault.__name__,
        "error": error,
        "good_step": good[0],
        "step_left": left[0],
        "whole": left[1],
        "drafts_left": drafts,
        "step_when_there_was_space_again": loaded(folder)[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small_disk", action="store_true", help="mount a tmpfs of 40 MB; needs the rights for it")
    parser.add_argument("--folder", type=Path, help="a folder on a small disk")
    parser.add_argument("--output", type=Path, default=RESULTS / "disk_full.csv")
    arguments = parser.parse_args()
    lines = []
    for async_save in (False, True):
        for fault in (before_a_save, in_a_save):
            folder = Path(tempfile.mkdtemp(dir=arguments.folder))
            if arguments.small_disk:
                subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(folder)], check=True)
            lines.append(try_case(folder, fault, async_save=async_save))
            print(lines[-1], flush=True)
            if arguments.small_disk:
                subprocess.run(["umount", "--lazy", str(folder)], check=True)
                folder.rmdir()
    with arguments.output.open("w", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows(lines)


if __name__ == "__main__":
    main()

"""SIGKILL in and around saves: is what can be loaded afterwards whole, and how many steps are lost?

    python -m experiments.faults.save_kills

Six kinds of run, each killed at random moments and then at single calls to the file system. A run goes on from the
newest checkpoint of the one before, in the same folder. Writes `results/save_kills.csv` and `.png`.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.faults.counting_run import count, last_step, loaded, steps_made
from tests.training.checkpoints.faults import CALLS
from tests.training.ranks import Ranks

RESULTS = Path(__file__).parent / "results"
SAVED_EVERY = 3
FOLDERS = {"same disk": None, "TMPDIR in /dev/shm": Path("/dev/shm"), "checkpoints in /dev/shm": None}


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One line of the table.

    Attributes:
        saves: `sync` or `async`.
        place: Where checkpoints and temporary files lay.
        call: What the process was doing: `random`, or the call to the file system at which it died.
        made: Last step that was made.
        loaded: Step of the checkpoint that was loaded afterwards.
        lost: Steps to be made again.
        drafts: Unfinished checkpoints left behind: 1 if the kill hit a save.
        torn: 1 if a checkpoint was loaded whose weights were not all of its step.
        skipped: Checkpoints that did not verify.
        in_tmpdir: Files in TMPDIR.
    """

    saves: str
    place: str
    call: str
    made: int
    loaded: int
    lost: int
    drafts: int
    torn: int
    skipped: int
    in_tmpdir: int


def kill(folder: Path, scratch: Path, *, saves: str, place: str, call: tuple[str, int] | None, seconds: float) -> Kill:
    """Start a run, kill it `seconds` after its first step (or let it die at `call`), and load what is there."""
    before = steps_made(folder)
    arguments = {"folder": folder, "async_save": saves == "async", "saved_every": SAVED_EVERY, "scratch": scratch}
    ranks = Ranks(count, world_size=1, **arguments, die_at=call)
    try:
        deadline = time.monotonic() + 60
        while steps_made(folder) == before and ranks.running and time.monotonic() < deadline:
            time.sleep(0.001)
        end = time.monotonic() + (20 if call else seconds)
        while ranks.running and time.monotonic() < end:
            time.sleep(0.001)
        assert call or ranks.running, "the run ended by itself"
    finally:
        ranks.kill()
    drafts = len(list((folder / "saved").glob(".*.ckpt.draft")))
    step, whole, skipped = loaded(folder)
    return Kill(
        saves=saves,
        place=place,
        call="random" if call is None else f"{call[0]} {call[1]}",
        made=last_step(folder),
        loaded=step,
        lost=last_step(folder) - step,
        drafts=drafts,
        torn=int(not whole),
        skipped=skipped,
        in_tmpdir=len(list(scratch.iterdir())),
    )


def kills(kills_of_a_kind: int, calls: int) -> list[Kill]:
    """All of them, in folders that are removed afterwards."""
    rng, made = random.Random(0), []
    for saves in ("sync", "async"):
        for place in FOLDERS:
            on_shm = place.startswith("checkpoints")
            folder = Path(tempfile.mkdtemp(dir="/dev/shm" if on_shm else None))
            scratch = Path(tempfile.mkdtemp(dir=FOLDERS[place]))
            try:
                for _ in range(kills_of_a_kind):
                    seconds = rng.uniform(0, 0.25)
                    made.append(kill(folder, scratch, saves=saves, place=place, call=None, seconds=seconds))
                for call in CALLS if place == "same disk" else ():
                    for number in range(calls):
                        # Past the calls of the first saves too, so that there is one to replace or remove.
                        at = (call, number if call != "write" else 5 * number)
                        made.append(kill(folder, scratch, saves=saves, place=place, call=at, seconds=0))
            finally:
                shutil.rmtree(folder)
                shutil.rmtree(scratch)
            print(f"{saves}, {place}: {sum(k.saves == saves and k.place == place for k in made)} kills", flush=True)
    return made


def write(made: list[Kill], folder: Path) -> None:
    """The table and the figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with (folder / "save_kills.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(asdict(made[0])))
        table.writeheader()
        table.writerows(asdict(line) for line in made)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, saves in zip(axes, ("sync", "async"), strict=True):
        of_kind = [line for line in made if line.saves == saves]
        for mark, color, name, chosen in (
            ("o", "tab:blue", "random moment", lambda line: line.call == "random" and not line.drafts),
            ("^", "tab:red", "random moment, in a save", lambda line: line.call == "random" and line.drafts),
            ("x", "tab:gray", "at one call to the file system", lambda line: line.call != "random"),
        ):
            points = [(number, line.lost) for number, line in enumerate(of_kind, 1) if chosen(line)]
            axis.plot(*zip(*points, strict=True), mark, color=color, ms=4, label=f"{name} ({len(points)})")
        for intervals, style in ((1, "--"), (2, ":")):
            name = f"{intervals} save interval{'s' if intervals > 1 else ''} ({intervals * SAVED_EVERY} steps)"
            axis.axhline(intervals * SAVED_EVERY, color="black", lw=0.8, ls=style, label=name)
        torn, skipped = sum(line.torn for line in of_kind), sum(line.skipped for line in of_kind)
        axis.set_title(f"{saves} saves: {len(of_kind)} kills, {torn} torn loads, {skipped} refused", fontsize=10)
        axis.set_xlabel("kill number")
        axis.legend(fontsize=8, loc="upper left", ncols=2)
    axes[0].set_ylabel("steps lost (made, but not in the checkpoint)")
    axes[0].set_ylim(-0.5, 2 * SAVED_EVERY + 4)
    figure.savefig(folder / "save_kills.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=34, help="random kills of each of the six kinds of run")
    parser.add_argument("--calls", type=int, default=4, help="kills at single calls, for each kind of call")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    start = time.perf_counter()
    made = kills(arguments.kills, arguments.calls)
    write(made, arguments.folder)
    random_ones = [line for line in made if line.call == "random"]
    hit = sum(line.drafts for line in random_ones)
    print(f"{len(made)} kills, {len(random_ones)} at random moments, {hit} of those in a save")
    for saves in ("sync", "async"):
        worst = max(line.lost for line in made if line.saves == saves)
        print(f"{saves}: at most {worst} steps lost, saves are {SAVED_EVERY} steps apart")
    torn, refused = sum(line.torn for line in made), sum(line.skipped for line in made)
    print(f"{torn} torn, {refused} refused, {max(line.in_tmpdir for line in made)} files in TMPDIR")
    print(f"{time.perf_counter() - start:.0f} s on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

"""Signs of life of all ranks, in small files of the run's folder, and what follows when one of them fails to come.

    <default_root_dir>/heartbeats/rank-3.json   {"run": …, "beat": 17, "progress": 240, "doing": "backward", …}

The main process watches every rank, every rank watches the main process, so the files read grow with the ranks and not
with their square. Nobody's clock is compared with another's: a beat is a number that changes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

FOLDER = "heartbeats"


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What a rank last said of itself.

    Attributes:
        run: Of which run; files of an earlier one may still lie there.
        beat: Goes up as long as the process lives.
        progress: Goes up as long as its main thread does something; equal work gives equal numbers on all ranks.
        doing: What its main thread began last.
        state: `running`; `ended`, as it should; `failed`.
        accused: Ranks that are to blame, once the rank has judged.
        host: Where it runs.
        pid: Its process there.
    """

    run: str
    beat: int = 0
    progress: int = 0
    doing: str = "setup"
    state: Literal["running", "ended", "failed"] = "running"
    accused: tuple[int, ...] = ()
    host: str = ""
    pid: int = 0


@dataclass(frozen=True)
class Verdict:
    """Why a run cannot go on.

    Attributes:
        kind: `rank_silent`: no beat. `rank_failed`: it said so, and the run did not end. `stuck`: no progress.
        ranks: Who is to blame.
        seconds: For how long it was waited.
    """

    kind: str
    ranks: tuple[int, ...]
    seconds: float


class HeartbeatFiles:
    """The files of one run.

    Args:
        folder: Theirs.
        run: Name of the run, the same on all ranks.
    """

    def __init__(self, folder: Path, run: str):
        self.folder = folder
        self.run = run

    def write(self, rank: int, beat: Beat) -> None:
        """Replace a rank's file; readers see the old one or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(rank)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(beat)), encoding="utf-8")
        os.replace(draft, path)

    def read(self, rank: int) -> Beat | None:
        """What a rank last said; None if it has said nothing in this run."""
        try:
            content = json.loads(self._path(rank).read_text(encoding="utf-8"))
            beat = Beat(**content | {"accused": tuple(content["accused"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return beat if beat.run == self.run else None

    def _path(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.json"


class Watch:
    """A rank's judgement of those it watches, from what it reads, again and again.

    Args:
        rank: The one that judges.
        world_size: Number of ranks.
        read: From `HeartbeatFiles`.
        dead_after: Seconds without a beat, or after a failure, until the run is given up.
        stuck_after: Seconds without progress of the rank itself.
        began: When it begins, in seconds of the same clock as `look`.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        read: Callable[[int], Beat | None],
        *,
        dead_after: float,
        stuck_after: float,
        began: float,
    ):
        self.rank = rank
        self.world_size = world_size
        self.read = read
        self.dead_after = dead_after
        self.stuck_after = stuck_after
        others = [other for other in range(world_size) if other != rank]
        self.watched: Collection[int] = others if rank == 0 else [0]
        self._seen: dict[int, tuple[Beat | None, float]] = {other: (None, began) for other in self.watched}
        self._progress = (-1, began)
        self._looked = began

    def look(self, now: float, own: Beat) -> Verdict | None:
        """What is wrong, if anything is.

        Args:
            now: Seconds.
            own: What the rank says of itself.
        """
        if now - self._looked > self.dead_after / 2:  # this process itself stood still, so it has missed beats
            self._seen = {other: (beat, now) for other, (beat, _) in self._seen.items()}
            self._progress = (-1, now)
        self._looked = now
        return self._of_others(now) or self._of_itself(now, own)

    def all_over(self) -> bool:
        """Whether none of those watched still runs, as far as they have said."""
        return all(beat is not None and beat.state != "running" for beat, _ in self._seen.values())

    def _of_others(self, now: float) -> Verdict | None:
        for other in self.watched:
            beat, (before, since) = self.read(other), self._seen[other]
            if beat is not None and beat.accused:
                return Verdict("rank_silent" if other in beat.accused else "rank_failed", beat.accused, now - since)
            if beat is not None and (before is None or _live(beat) != _live(before)):
                self._seen[other] = (beat, now)
        late = {other: beat for other, (beat, since) in self._seen.items() if now - since > self.dead_after}
        silent = tuple(other for other, beat in late.items() if beat is None or beat.state == "running")
        failed = tuple(other for other, beat in late.items() if beat is not None and beat.state == "failed")
        if not silent and not failed:
            return None
        waited = now - min(self._seen[other][1] for other in silent or failed)
        return Verdict("rank_silent" if silent else "rank_failed", silent or failed, waited)

    def _of_itself(self, now: float, own: Beat) -> Verdict | None:
        if own.progress != self._progress[0]:
            self._progress = (own.progress, now)
        waited = now - self._progress[1]
        if own.state != "running" or waited <= self.stuck_after:
            return None
        beats = {other: self.read(other) for other in range(self.world_size) if other != self.rank} | {self.rank: own}
        running = {
            other: beat.progress for other, beat in beats.items() if beat is not None and beat.state == "running"
        }
        behind = min(running.values())
        return Verdict("stuck", tuple(sorted(r for r, progress in running.items() if progress == behind)), waited)


def _live(beat: Beat) -> Beat:
    """What changes as long as a rank lives; a failed one's beats are no sign of life."""
    return beat if beat.state == "running" else replace(beat, beat=0, progress=0, doing="")

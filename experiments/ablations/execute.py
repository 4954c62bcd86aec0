"""Runs the runs of a grid that are not finished, several at a time, each in a process of its own with one thread."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

from experiments.ablations.folder import CONFIG, LOG, RunFolder

State = Literal["waiting", "running", "finished", "failed"]
POLL_SECONDS = 0.2


@dataclass
class Job:
    """A run on its way.

    Attributes:
        arm: Of the run.
        seed: Of the run.
        folder: Of the run.
        state: `finished` also for what an earlier process of the grid finished.
        seconds: That its process took so far; 0 for what was finished before.
        exit_code: Of its process, when it ended.
    """

    arm: str
    seed: int
    folder: RunFolder
    state: State = "waiting"
    seconds: float = 0.0
    exit_code: int | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _started: float = 0.0
    _open: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def name(self) -> str:
        """As its folder."""
        return self.folder.path.name

    @property
    def command(self) -> list[str]:
        """Without a checkpoint, `last` begins anew."""
        config = f"--config={self.folder.path / CONFIG}"
        return [sys.executable, "-m", "theworld.cli", "fit", config, "--ckpt_path=last"]

    def start(self) -> None:
        """Begin, or go on from the newest checkpoint that verifies."""
        lock = self._open.enter_context(self.folder.locked())
        self.folder.prepare()
        log = self._open.enter_context((self.folder.path / LOG).open("ab"))
        log.write(f"--- started at {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        log.flush()
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self.command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            pass_fds=(lock,),  # so that the folder is held until this process ends, whatever becomes of ours
        )
        self.state = "running"

    def look(self) -> None:
        """See whether its process has ended, and how."""
        assert self._process is not None, "started before"
        self.seconds = time.monotonic() - self._started
        self.exit_code = self._process.poll()
        if self.exit_code is None:
            return
        if self.exit_code == 0:
            self.folder.finish(seconds=self.seconds)
        self.state = "finished" if self.exit_code == 0 else "failed"
        self._open.close()

    def stop(self) -> None:
        """Ask its process to save and end, and wait until it has."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        self._open.close()


def execute(jobs: Sequence[Job], *, side_by_side: int, shown: Callable[[Job | None], None]) -> None:
    """Run every job that waits. One that fails does not keep the others from running.

    Args:
        jobs: In the order in which they start.
        side_by_side: How many run at a time.
        shown: Called with a job when it starts or ends, and with None while nothing happens.
    """
    for job in jobs:
        with job.folder.locked():  # before anything is started: none may be at work still
            pass
    waiting = [job for job in jobs if job.state == "waiting"]
    running: list[Job] = []
    try:
        while waiting or running:
            while waiting and len(running) < side_by_side:
                job = waiting.pop(0)
                running.append(job)
                job.start()
                shown(job)
            time.sleep(POLL_SECONDS)
            for job in running:
                job.look()
                if job.state != "running":
                    shown(job)
            running = [job for job in running if job.state == "running"]
            shown(None)
    finally:
        for job in running:
            job.stop()

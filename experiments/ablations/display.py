"""The grid while it runs: a row an arm, a column a seed; and a line for each run that starts or ends."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from experiments.ablations.execute import Job
from experiments.ablations.folder import SUMMARY


class Display:
    """To be used as a context manager. On a terminal the table is drawn anew each second.

    Args:
        jobs: Of the grid.
        console: Where to draw.
    """

    def __init__(self, jobs: Sequence[Job], console: Console | None = None):
        self.jobs = jobs
        self.console = Console() if console is None else console
        self._live = Live(console=self.console, auto_refresh=False)
        self._drawn = 0.0
        self._began = time.monotonic()

    def __enter__(self) -> Display:
        self._live.start()
        self.show(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(self.table(), refresh=True)
        self._live.stop()

    def show(self, job: Job | None) -> None:
        """Draw, with a line for a job that has just started or ended."""
        if job is not None:
            self.console.print(f"{time.strftime('%H:%M:%S')}  {job.name}: {_said(job)}", highlight=False)
        if job is not None or time.monotonic() - self._drawn >= 1:
            self._live.update(self.table(), refresh=self.console.is_terminal)
            self._drawn = time.monotonic()

    def table(self) -> Table:
        """The grid as it is."""
        states = [job.state for job in self.jobs]
        counts = ", ".join(
            f"{states.count(s)} {s}" for s in ("finished", "running", "waiting", "failed") if s in states
        )
        minutes = (time.monotonic() - self._began) / 60
        table = Table(title=f"{counts}; {minutes:.1f} minutes since this start", title_justify="left")
        seeds, arms = (list(dict.fromkeys(getattr(job, name) for job in self.jobs)) for name in ("seed", "arm"))
        table.add_column("arm")
        for seed in seeds:
            table.add_column(f"seed {seed}")
        cells = {(job.arm, job.seed): _said(job) for job in self.jobs}
        for arm in arms:
            table.add_row(arm, *(cells[arm, seed] for seed in seeds))
        return table


def _said(job: Job) -> str:
    if job.state == "running":
        return f"running, {job.seconds:.0f} s"
    if job.state == "failed":
        return f"FAILED, exit status {job.exit_code}"
    if job.state == "waiting":
        return "waiting"
    overall = json.loads((job.folder.path / SUMMARY).read_text(encoding="utf-8"))["rows"]["overall"]
    took = f" in {job.seconds:.0f} s" if job.seconds else " before"
    return f"{100 * overall['accuracy']:.1f} % right, finished{took}"

"""A grid of ablations from one command: check, run what is not finished, report.

    python -m experiments.ablations.run --grid experiments/ablations/grids/tiny.yaml --output outputs/ablations

Options of `theworld fit` for every run stand behind `--`. Started again after a kill, it goes on where it was; finished
runs are not run again. Exit status 1: a run failed, or two arms gave the same answers.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.ablations.display import Display
from experiments.ablations.execute import Job, execute
from experiments.ablations.folder import RunFolder
from experiments.ablations.grid import Grid
from experiments.ablations.order import check_same_order, order_of
from experiments.ablations.report import write_report


def main(words: Sequence[str] | None = None) -> int:
    """Exit status."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)  # of trainers that are made to read settings
    given = list(sys.argv[1:] if words is None else words)
    own, further = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(prog="python -m experiments.ablations.run", description=__doc__.split("\n")[0])
    parser.add_argument("--grid", required=True, help="YAML file of the grid")
    parser.add_argument("--output", required=True, help="folder: runs/ and the report")
    options = parser.parse_args(own)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that runs are asked to save
    try:
        return run(Grid.read(options.grid, further), Path(options.output), command=" ".join(given))
    except ValueError as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 1


def run(grid: Grid, output: Path, *, command: str) -> int:
    """Run a grid and report.

    Args:
        grid: What to run.
        output: A folder for each run below `runs`; the report beside it.
        command: For the report.

    Raises:
        ValueError: The arms of a seed would not see the same data, or a folder holds a run with other settings.
    """
    jobs = plan(grid, output)
    with Display(jobs) as display:
        execute(jobs, side_by_side=grid.side_by_side, shown=display.show)
    failed = [job for job in jobs if job.state == "failed"]
    for job in failed:
        print(f"ablations: {job.name} ended with exit status {job.exit_code}; see {job.folder.path / 'log.txt'}")
    if failed:
        print("ablations: no report before all runs are finished; mend it and give the same command again")
        return 1
    report = write_report(grid, {(job.arm, job.seed): job.folder for job in jobs}, output, command=command)
    for line in report.alarms:
        print(f"ablations: {line}", file=sys.stderr)
    print(f"Wrote {output / 'report.md'}, report.png, report.json and answers_seed*.csv")
    return 1 if report.alarms else 0


def plan(grid: Grid, output: Path) -> list[Job]:
    """A job for each run, those of earlier processes finished already; nothing is started.

    Raises:
        ValueError: As `run` says.
    """
    orders = {seed: {r.arm: order_of(r.words) for r in grid.runs if r.seed == seed} for seed in grid.seeds}
    for seed, of_arms in orders.items():
        check_same_order(grid.reference, of_arms)
        steps = len(of_arms[grid.reference].steps)
        print(f"seed {seed}: the same samples in each of {steps} steps and the same questions in {len(of_arms)} arms")
    jobs = []
    for one in grid.runs:
        order = orders[one.seed][one.arm].sha256
        folder = RunFolder(output.resolve() / "runs" / one.name, one.config, order)
        if folder.path.exists():
            folder.check()
        done = folder.result() is not None
        jobs.append(Job(arm=one.arm, seed=one.seed, folder=folder, state="finished" if done else "waiting"))
    return jobs


if __name__ == "__main__":
    sys.exit(main())

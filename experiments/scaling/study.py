"""The whole scaling study by one command: every stage on every number of devices, checkpoints across, a rank killed.

    python -m experiments.scaling.study --sizes 1 2 4 8 --folder /local/disk/scaling --output results --name h100_x8
    python -m experiments.scaling.study --sizes 1 2 --folder /tmp/scaling --output /tmp --name tiny --tiny   # CPU, gloo

Calls `run.py` under torchrun, jobs side by side on GPUs of their own: first each stage is trained on each size, then
each size goes on from the checkpoint of the next smaller one (the smallest from the largest's), then `kill_rank.py`.
`--parts` splits that over several calls, and what NAME.json has of the first part is not run again. Writes NAME.json,
and NAME.md and NAME.png by `tables.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.scaling.kill_rank import kill_and_resume
from experiments.scaling.tables import write_figure, write_table

HERE = Path(__file__).parent
PARTS = ("train", "resume", "kill")

STAGES = ("language", "vision", "projection")
"""The longest first, so that the short ones fill the GPUs beside it."""

RESUMED = ("language", "projection")
"""Vision trains under DDP as projection does, so its checkpoints are not resumed."""

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """One call of `run.py`.

    Attributes:
        stage: Of `run.STAGES`.
        size: Devices.
        resumes: The number of devices whose checkpoint it goes on from; None trains from the start.
    """

    stage: str
    size: int
    resumes: int | None = None

    @property
    def name(self) -> str:
        return f"{self.stage}-{self.size}" + ("" if self.resumes is None else f"-from-{self.resumes}")

    def command(self, arguments: argparse.Namespace) -> list[str]:
        parts = ["train"] if self.resumes is None else ["resume", f"--written_on={self.resumes}"]
        return [
            *(sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={self.size}", "--rdzv-backend=c10d"),
            *("--rdzv-endpoint=localhost:0", str(HERE / "run.py"), f"--stage={self.stage}"),
            *(f"--folder={arguments.folder}", f"--global_rows={max(arguments.sizes)}", "--parts", *parts),
            f"--output={arguments.folder / self.name}.json",
            *(["--tiny"] if arguments.tiny else [f"--backend={arguments.backend}"]),
        ]


@dataclass
class Running:
    """A job that was started."""

    job: Job
    devices: list[int]
    process: subprocess.Popen[bytes]
    started: float


def start(job: Job, devices: list[int], arguments: argparse.Namespace) -> Running:
    """Start it on these GPUs; its log is beside the checkpoints."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    if not arguments.tiny:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
    options = {"stderr": subprocess.STDOUT, "env": environment, "cwd": HERE.parents[1]}
    with (arguments.folder / f"{job.name}.log").open("w") as log:
        process = subprocess.Popen(job.command(arguments), stdout=log, **options)
    return Running(job, devices, process, time.perf_counter())


def result_of(one: Running, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """What it wrote, or None while it runs.

    Raises:
        SystemExit: It failed or takes too long; says the end of its log.
    """
    seconds, code = time.perf_counter() - one.started, one.process.poll()
    if code is None and seconds < arguments.timeout:
        return None
    if code != 0:
        said = (arguments.folder / f"{one.job.name}.log").read_text()
        raise SystemExit(f"{one.job.name} ended with {code} after {seconds:.0f} s:\n{said[-4000:]}")
    print(f"{one.job.name}: {seconds:.0f} s", flush=True)
    return json.loads((arguments.folder / f"{one.job.name}.json").read_text())


def side_by_side(jobs: list[Job], arguments: argparse.Namespace) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Run jobs, each as soon as there are devices for it; with `--tiny` one at a time. Yields results as they come."""
    waiting, running = list(jobs), list[Running]()
    free = list(range(max(arguments.sizes)))
    try:
        while waiting or running:
            for job in list(waiting):
                if job.size <= len(free) and not (arguments.tiny and running):
                    own, free = free[: job.size], free[job.size :]
                    running.append(start(job, own, arguments))
                    waiting.remove(job)
            time.sleep(POLL_SECONDS)
            for one in list(running):
                if (result := result_of(one, arguments)) is not None:
                    running.remove(one)
                    free = sorted(free + one.devices)
                    yield one.job, result
    finally:
        for one in running:
            one.process.terminate()  # torchrun ends its workers


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """The parts that are asked for, added to what an earlier call found."""
    path = arguments.output / f"{arguments.name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": []}
    sizes, stages = sorted(arguments.sizes), [stage for stage in STAGES if stage in arguments.stages]
    if "train" in arguments.parts:
        done = {(run["stage"], run["devices"]) for run in found["runs"]}
        jobs = [Job(stage, size) for stage in stages for size in sizes if (stage, size) not in done]
        for _, result in side_by_side(jobs, arguments):
            found["runs"].append(result)
            save(path, found)
    if "resume" in arguments.parts:
        before = dict(zip(sizes, sizes[-1:] + sizes[:-1], strict=True))  # each size goes on from the next smaller one's
        again = [Job(stage, size, before[size]) for stage in stages if stage in RESUMED for size in sizes]
        for job, result in side_by_side(again, arguments):
            run = next((r for r in found["runs"] if (r["stage"], r["devices"]) == (job.stage, job.size)), None)
            if run is None:
                raise SystemExit(f"found no training of {job.stage} on {job.size} in {path}: run --parts=train first")
            run.setdefault("resumed", {}).update(result["resumed"])
            save(path, found)
    if "kill" in arguments.parts:
        settings = {"size": 2, "on_gpu": not arguments.tiny, "scenes": arguments.scenes}
        found["killed_rank"] = kill_and_resume(arguments.folder / "killed", **settings)
        save(path, found)
    return found


def save(path: Path, found: dict[str, Any]) -> None:
    """What there is so far."""
    path.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--stages", nargs="+", default=[*STAGES], choices=[*STAGES])
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints and logs; 20 GB a size for language")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--name", default="scaling")
    parser.add_argument("--backend", default="flash")
    parser.add_argument("--timeout", type=float, default=400.0, help="seconds of one call")
    parser.add_argument("--scenes", type=Path, help="where scenes were drawn before, if no renderer is here")
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    for folder in (arguments.folder, arguments.output):
        folder.mkdir(parents=True, exist_ok=True)
    found = study(arguments)
    write_table(found, arguments.output / f"{arguments.name}.md")
    write_figure(found, arguments.output / f"{arguments.name}.png")
    print((arguments.output / f"{arguments.name}.md").read_text())


if __name__ == "__main__":
    main()

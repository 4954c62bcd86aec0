"""The whole scaling study by one command: every stage on every number of devices, checkpoints across, a rank killed.

    python -m experiments.scaling.study --sizes 1 2 4 8 --folder /local/disk/scaling --output results --name h100_x8
    python -m experiments.scaling.study --sizes 1 2 --folder /tmp/scaling --output /tmp --name tiny --tiny   # CPU, gloo

Calls `run.py` under torchrun, small sizes side by side on GPUs of their own, then again on the small sizes for the
checkpoints that larger ones wrote, then `kill_rank.py`. Writes NAME.json, and NAME.md and NAME.png by `tables.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.scaling.kill_rank import kill_and_resume
from experiments.scaling.tables import write_figure, write_table

HERE = Path(__file__).parent
PARTS = {"projection": ("train", "resume"), "vision": ("train",), "language": ("train", "resume")}
"""What is run of each stage; vision trains under DDP as projection does, so its checkpoints are not resumed."""

Job = tuple[str, int, tuple[str, ...]]
"""Stage, devices, parts."""


def command(job: Job, arguments: argparse.Namespace, output: Path) -> list[str]:
    """Of one call of `run.py`."""
    stage, size, parts = job
    return [
        *(sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={size}", "--rdzv-backend=c10d"),
        *("--rdzv-endpoint=localhost:0", str(HERE / "run.py"), f"--stage={stage}", f"--folder={arguments.folder}"),
        *("--only_others", f"--global_rows={max(arguments.sizes)}", "--parts", *parts, f"--output={output}"),
        *(["--tiny"] if arguments.tiny else [f"--backend={arguments.backend}"]),
    ]


def side_by_side(jobs: list[Job], arguments: argparse.Namespace, label: str) -> list[dict[str, Any]]:
    """Run jobs, as many at a time as there are devices for.

    Raises:
        SystemExit: One failed; says the end of its log.
    """
    waiting, results = list(jobs), []
    while waiting:
        free, now = list(range(1 if arguments.tiny else max(arguments.sizes))), []
        while waiting and (not now or waiting[0][1] <= len(free)):
            job = waiting.pop(0)
            own, free = free[: job[1]], free[job[1] :]
            name = f"{job[0]}-{job[1]}-{label}"
            environment = os.environ | {"PYTHONUNBUFFERED": "1"}
            if not arguments.tiny:
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, own))
            log = (arguments.folder / f"{name}.log").open("w")
            call = command(job, arguments, arguments.folder / f"{name}.json")
            now.append(
                (
                    name,
                    subprocess.Popen(call, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=HERE.parents[1]),
                )
            )
        started = time.perf_counter()
        for name, process in now:
            if process.wait(timeout=arguments.timeout):
                for _, other in now:
                    other.kill()
                said = (arguments.folder / f"{name}.log").read_text()
                raise SystemExit(f"{name} ended with {process.returncode}:\n{said[-4000:]}")
            results.append(json.loads((arguments.folder / f"{name}.json").read_text()))
        print(f"{', '.join(name for name, _ in now)}: {time.perf_counter() - started:.0f} s", flush=True)
    return results


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    results: list[dict[str, Any]] = []
    for size in sorted(arguments.sizes):
        results += side_by_side([(stage, size, PARTS[stage]) for stage in arguments.stages], arguments, "up")
        save(arguments, {"runs": results})
    smaller = sorted(arguments.sizes)[:-1]
    down: list[Job] = [(s, size, ("resume",)) for size in smaller for s in arguments.stages if "resume" in PARTS[s]]
    for again in side_by_side(down, arguments, "down"):
        first = next(r for r in results if (r["stage"], r["devices"]) == (again["stage"], again["devices"]))
        first["resumed"] |= again["resumed"]
    found: dict[str, Any] = {"runs": results}
    save(arguments, found)
    if not arguments.no_kill:
        settings = {"size": 2, "on_gpu": not arguments.tiny, "scenes": arguments.scenes}
        found["killed_rank"] = kill_and_resume(arguments.folder / "killed", **settings)
        save(arguments, found)
    return found


def save(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    """What there is so far."""
    (arguments.output / f"{arguments.name}.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--stages", nargs="+", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints and logs; 20 GB a size for language")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--name", default="scaling")
    parser.add_argument("--backend", default="flash")
    parser.add_argument("--timeout", type=float, default=400.0, help="seconds of one call")
    parser.add_argument("--scenes", type=Path, help="where scenes were drawn before, if no renderer is here")
    parser.add_argument("--no_kill", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    found = study(arguments)
    write_table(found, arguments.output / f"{arguments.name}.md")
    write_figure(found, arguments.output / f"{arguments.name}.png")
    print((arguments.output / f"{arguments.name}.md").read_text())


if __name__ == "__main__":
    main()

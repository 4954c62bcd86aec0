"""One rank of a run is killed with SIGKILL: how soon all end, which codes, and what a resume makes of it.

    python -m experiments.scaling.kill_rank --folder /tmp/killed                  # two CPU processes over gloo
    python -m experiments.scaling.kill_rank --folder /tmp/killed --on_gpu         # two GPUs over NCCL

`theworld fit --config configs/tiny.yaml` under FSDP2, so that the base is handed out to the ranks as well, once to its
end, and once with rank 1 killed behind step `KILLED_AT` and started again with `--ckpt_path=last`. No launcher
stands above the ranks (torchrun would end the others by itself): the package's own watchdog has to.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.faults.killable_run import entries
from theworld.training.events import read_events

ROOT = Path(__file__).parents[2]
STEPS, KILLED_AT, SAVED_EVERY, DEAD_AFTER = 16, 9, 4, 10.0
"""Optimizer steps, and seconds after which the watchdog calls a silent rank dead."""

RUN = "import json, sys; from experiments.faults.killable_run import fit; from pathlib import Path; "
RUN += "fit(world_size=0, arguments=json.loads(sys.argv[1]), log=Path(sys.argv[2]))"


def arguments_of(folder: Path, *, size: int, on_gpu: bool, scenes: Path) -> list[str]:
    """Of `theworld fit`."""
    return [
        *(f"--config={ROOT / 'configs' / 'tiny.yaml'}", f"--trainer.default_root_dir={folder}"),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.logger=false"),
        *("--trainer.log_every_n_steps=1", "--trainer.limit_val_batches=0", "--test_after_fit=false"),
        *(f"--trainer.accelerator={'gpu' if on_gpu else 'cpu'}", f"--trainer.devices={size}"),
        "--trainer.strategy.class_path=theworld.training.parallel.strategy.FullySharded",
        *("--trainer.accumulate_grad_batches=1", f"--data.micro_batches_per_step={size}"),
        *(f"--data.synthetic.cache_dir={scenes}", "--data.synthetic.num_train=300"),
        *("--data.synthetic.num_val=8", "--data.synthetic.num_test=8"),
        *(f"--checkpoint.every_n_train_steps={SAVED_EVERY}", f"--watchdog.dead_after={DEAD_AFTER}"),
        *("--model.stages.projection.max_steps=4", "--model.stages.vision.max_steps=4"),
        *(f"--model.stages.language.max_steps={STEPS - 8}", "--ckpt_path=last"),
    ]


def start(folder: Path, words: list[str], *, size: int) -> list[subprocess.Popen[bytes]]:
    """A process a rank, as SLURM's `srun` would start them."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(size):
        own = {"LOCAL_RANK": rank, "RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": size}
        own |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
        own["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        call = [sys.executable, "-c", RUN, json.dumps(words), str(folder / f"log-{rank}.txt")]
        environment = os.environ | {name: str(value) for name, value in own.items()}
        ranks.append(subprocess.Popen(call, env=environment, cwd=ROOT))
    return ranks


def wait(ranks: list[subprocess.Popen[bytes]], folder: Path, seconds: float) -> list[int]:
    """Exit codes.

    Raises:
        SystemExit: A rank did not end in time.
    """
    deadline = time.monotonic() + seconds
    try:
        return [rank.wait(max(0.1, deadline - time.monotonic())) for rank in ranks]
    except subprocess.TimeoutExpired as late:
        for rank in ranks:
            rank.kill()
        logs = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(folder.glob("log-*.txt")))
        raise SystemExit(f"a rank did not end within {seconds:.0f} s; {logs}") from late


def losses(folder: Path) -> dict[int, set[float]]:
    """By step, what the ranks wrote down in all attempts."""
    found: dict[int, set[float]] = {}
    for line in entries(folder):
        if "step" in line:
            found.setdefault(int(line["step"]), set()).add(float(line["loss"]))
    return found


def kill_and_resume(folder: Path, *, size: int, on_gpu: bool, scenes: Path | None = None) -> dict[str, Any]:
    """The facts, as plain numbers.

    Raises:
        SystemExit: A run that should have ended well did not.
    """
    whole, killed = folder / "whole", folder / "killed"
    settings = {"size": size, "on_gpu": on_gpu, "scenes": scenes or folder / "scenes"}
    if codes := set(wait(start(whole, arguments_of(whole, **settings), size=size), whole, 300)) - {0}:
        raise SystemExit(f"the whole run ended with {codes}: {(whole / 'log-0.txt').read_text()[-3000:]}")
    words = arguments_of(killed, **settings)
    ranks = start(killed, words, size=size)
    while max(losses(killed), default=0) < KILLED_AT and all(rank.poll() is None for rank in ranks):
        time.sleep(0.005)
    ranks[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    codes = wait(ranks, killed, 20 * DEAD_AFTER)
    seconds = time.monotonic() - began
    events = read_events(killed)
    if again := set(wait(start(killed, words, size=size), killed, 300)) - {0}:
        raise SystemExit(f"the resumed run ended with {again}: {(killed / 'log-0.txt').read_text()[-3000:]}")
    expected, found = losses(whole), losses(killed)
    starts = [int(line["start"]) for line in entries(killed) if "start" in line]
    return {
        "processes": size,
        "backend": "nccl" if on_gpu else "gloo",
        "killed_behind_step": KILLED_AT,
        "dead_after_seconds": DEAD_AFTER,
        "seconds_to_last_exit": seconds,
        "exit_codes": codes,
        "events": [(e["event"], e["ranks"]) for e in events if "ranks" in e],
        "resumed_at_step": starts[-1],
        "losses_compared": sorted(found),
        "largest_loss_difference": max(abs(a - b) for step in found for a in found[step] for b in expected[step]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--scenes", type=Path, help="where scenes were drawn before, if no renderer is here")
    parser.add_argument("--on_gpu", action="store_true")
    arguments = parser.parse_args()
    settings = {"size": arguments.size, "on_gpu": arguments.on_gpu, "scenes": arguments.scenes}
    print(json.dumps(kill_and_resume(arguments.folder, **settings), indent=1))


if __name__ == "__main__":
    main()

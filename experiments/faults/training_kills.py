"""Kill -9 at random moments of a three-stage run: the losses afterwards are those of the run that was never killed.

    python -m experiments.faults.training_kills
    CUBLAS_WORKSPACE_CONFIG=:4096:8 python -m experiments.faults.training_kills --on_gpu --name training_kills_gpu \
        --trainer.deterministic=true

`theworld fit --config configs/tiny.yaml` with shorter stages, once from beginning to end and once killed again and
again and resumed with `--ckpt_path=last`: at random moments, at stage boundaries and in the middle of saves. Writes
`results/training_kills.csv` and `.png`.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import torch

from experiments.faults.killable_run import entries, fit
from tests.training.ranks import CONTEXT, Ranks

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
STAGES = {"projection": 14, "vision": 14, "language": 32}
SAVED_EVERY = 3
CONTEXT.set_forkserver_preload(["experiments.faults.killable_run"])  # so that a process is there in a moment


def command(folder: Path, scenes: Path, *extra: str) -> list[str]:
    return [
        f"--config={ROOT / 'configs' / 'tiny.yaml'}",
        f"--trainer.default_root_dir={folder}",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.logger=false",
        "--trainer.log_every_n_steps=1",
        "--trainer.val_check_interval=40",
        "--test_after_fit=false",
        f"--data.synthetic.cache_dir={scenes}",
        "--data.synthetic.num_train=300",
        "--data.synthetic.num_val=8",
        "--data.synthetic.num_test=8",
        f"--checkpoint.every_n_train_steps={SAVED_EVERY}",
        *(f"--model.stages.{name}.max_steps={steps}" for name, steps in STAGES.items()),
        *extra,
    ]


def boundaries() -> list[int]:
    steps = list(STAGES.values())
    return [sum(steps[: number + 1]) for number in range(len(steps) - 1)]


def made(folder: Path) -> int:
    """The last step that was made in the present process: 0 before its first."""
    lines = entries(folder)
    starts = [number for number, line in enumerate(lines) if "start" in line]
    return max((int(line["step"]) for line in lines[starts[-1] :] if "step" in line), default=0) if starts else 0


def started(folder: Path, arguments: list[str]) -> Ranks:
    """A process of `theworld fit`."""
    context = get_context("spawn") if "--trainer.accelerator=gpu" in arguments else CONTEXT
    return Ranks(fit, world_size=1, context=context, arguments=arguments, log=folder / "log.txt")


def run_to_the_end(folder: Path, arguments: list[str]) -> None:
    """Wait for a run that should end by itself."""
    try:
        started(folder, arguments).wait(600)
    except AssertionError as error:
        log = folder / "log.txt"
        said = log.read_text()[-3000:] if log.exists() else "nothing, see above"
        raise SystemExit(f"{error}; {log} ends with\n{said}") from error


def kill_once(folder: Path, arguments: list[str], kind: str, at: int, rng: random.Random) -> dict[str, object]:
    """Start or resume, kill after step `at` was made, in the way of `kind`."""
    before = len(entries(folder))
    ranks = started(folder, arguments)
    try:
        deadline = time.monotonic() + 180
        while ranks.running and time.monotonic() < deadline and (len(entries(folder)) == before or made(folder) < at):
            time.sleep(0.001)
        saves = folder / "checkpoints"
        if kind == "save":
            while ranks.running and not list(saves.glob(".*.ckpt.draft")):
                time.sleep(0.0002)
        elif kind == "random":
            time.sleep(rng.uniform(0, 0.6))
        assert ranks.running, f"the run ended by itself, see {folder / 'log.txt'}"
    finally:
        ranks.kill()
    return {"kind": kind, "step": made(folder), "draft": len(list((folder / "checkpoints").glob(".*.ckpt.draft")))}


def plan_of(count: int, rng: random.Random) -> list[tuple[str, int]]:
    """Kinds and steps in increasing order: both boundaries, at least a third in saves, the others anywhere."""
    total = sum(STAGES.values())
    steps = sorted(rng.sample(range(1, total - SAVED_EVERY - 2), count - 2) + boundaries())
    return [
        ("boundary" if step in boundaries() else ("save", "random")[number % 2], step)
        for number, step in enumerate(steps)
    ]


def run(count: int, folder: Path, *extra: str) -> tuple[list[dict], list[dict], list[dict], bool]:
    """Entries of the run that was never killed, of the one that was, the kills, and whether the final weights agree."""
    scenes = folder / "scenes"
    whole, killed = folder / "whole", folder / "killed"
    for path in (whole, killed):
        path.mkdir()
    run_to_the_end(whole, command(whole, scenes, *extra))
    rng, kills = random.Random(0), []
    resumed = command(killed, scenes, *extra, "--ckpt_path=last")
    for kind, at in plan_of(count, rng):
        kills.append(kill_once(killed, resumed, kind, at, rng))
        print(kills[-1], flush=True)
    run_to_the_end(killed, resumed)
    ours, theirs = (torch.load(path / "end.pt", weights_only=True) for path in (killed, whole))
    same = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    return entries(whole), entries(killed), kills, same


def write(whole: list[dict], killed: list[dict], kills: list[dict], folder: Path, name: str) -> tuple[int, float]:
    """The table and the figure; number of losses compared, and their largest difference."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    expected = {line["step"]: line for line in whole if "step" in line}
    table, attempt = [], 0
    for line in killed:
        attempt += "start" in line
        if "step" in line:
            loss, other = line["loss"], expected[line["step"]]["loss"]
            table.append({"attempt": attempt} | line | {"uninterrupted": other, "difference": abs(loss - other)})
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(9, 5.6), sharex=True, layout="constrained", gridspec_kw={"height_ratios": [3, 1]}
    )
    top.plot(list(expected), [line["loss"] for line in expected.values()], color="black", lw=2.5, label="never killed")
    top.plot(
        [line["step"] for line in table],
        [line["loss"] for line in table],
        ".",
        ms=4,
        color="tab:orange",
        label=f"killed {len(kills)} times, every step of every attempt ({len(table)})",
    )
    for kind, mark, color in (("random", "o", "tab:red"), ("boundary", "s", "tab:purple"), ("save", "^", "tab:blue")):
        steps = [kill["step"] for kill in kills if kill["kind"] == kind]
        where = {"random": "at a random moment", "boundary": "at a stage boundary", "save": "in a save"}[kind]
        top.plot(
            steps,
            [expected[max(step, 1)]["loss"] for step in steps],
            mark,
            mfc="none",
            ms=9,
            color=color,
            label=f"SIGKILL {where} ({len(steps)})",
        )
    for axis in (top, bottom):
        for boundary in boundaries():
            axis.axvline(boundary + 0.5, color="gray", lw=0.8, ls=":")
    start = 0
    for stage, steps in STAGES.items():
        top.text(start + steps / 2, 0.97, stage, transform=top.get_xaxis_transform(), ha="center", va="top", fontsize=9)
        start += steps
    top.set_ylabel("training loss (nats a target token)")
    top.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1.0, 0.92))
    bottom.plot([line["step"] for line in table], [line["difference"] for line in table], ".", color="tab:orange")
    worst = max(line["difference"] for line in table)
    bottom.set(xlabel="optimizer step", ylabel="|difference|\n(nats)")
    bottom.set_ylim(-1e-3, 1e-2) if worst == 0 else None
    bottom.set_title(f"largest difference of {len(table)} losses: {worst}", fontsize=9)
    figure.savefig(folder / f"{name}.png", dpi=120)
    return len(table), worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--name", default="training_kills")
    parser.add_argument("--keep", action="store_true", help="keep the runs' folders")
    parser.add_argument("--on_gpu", action="store_true")
    arguments, extra = parser.parse_known_args()
    extra += ["--trainer.accelerator=gpu"] if arguments.on_gpu else []
    start, folder = time.perf_counter(), Path(tempfile.mkdtemp(prefix="training_kills_"))
    whole, killed, kills, same = run(arguments.kills, folder, *extra)
    count, worst = write(whole, killed, kills, arguments.output, arguments.name)
    starts = [line["start"] for line in killed if "start" in line]
    print(f"{len(kills)} kills, {sum(kill['draft'] for kill in kills)} of them left an unfinished checkpoint behind")
    print(f"started at steps {starts}")
    print(f"{count} losses, largest difference {worst}; final weights bit for bit the same: {same}")
    print(f"{time.perf_counter() - start:.0f} s")
    if not arguments.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

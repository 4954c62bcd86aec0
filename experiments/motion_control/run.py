"""Does the world branch carry time? Two frames against one, on questions that motion alone decides.

    python -m experiments.motion_control.run --output outputs/motion_control

Draws, indexes, caches, trains the arms side by side and compares them; what is there is not made again. Everything but
the second frames' latents is made by commands of `theworld`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from experiments.motion_control.answers import Answered, accuracy, ask, best_threshold, compare
from experiments.motion_control.figure import draw
from experiments.motion_control.frames import BASE, PRECISION, Shown, Split, cache_frames
from experiments.motion_control.pictures import SPLITS, MotionPictures
from theworld.cli import main as theworld

HERE = Path(__file__).parent
TINY = HERE.parents[1] / "configs" / "tiny.yaml"
SIDE = 32
"""Of the world encoder's frame, in pixels: 16 latent cells."""

ARMS: dict[str, tuple[Shown, Shown]] = {
    "two_frames": ("first", "second"),
    "first_frame_twice": ("first", "first"),
    "second_frame_twice": ("second", "second"),
}
"""Trained arms → which frame's latents stand in the place of each. All have as many tokens."""

ASKED = {arm: (arm, False) for arm in ARMS} | {"two_frames_without_future": ("two_frames", True)}
"""Arms of the comparison → the arm that was trained, and whether the second frame is taken away when it is asked."""

RULE = "best_rule_of_second_frame"
"""No model: the size of the second object against a threshold, the best one for the very rows that are asked."""

INDEX = (f"--world_image_size={SIDE}", "--num_world_steps=1", "--max_seq_length=160")
LEVEL = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of data, caches, runs and answers")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of motion.json and motion.png")
    parser.add_argument("--seed", type=int, default=0, help="of pictures, order and new weights")
    args = parser.parse_args()
    start = time.perf_counter()
    facts = run(args.output, seed=args.seed)
    facts["seconds"] = {"wall": round(time.perf_counter() - start, 1), "cpu": round(_cpu_seconds(), 1)}
    args.results.mkdir(parents=True, exist_ok=True)
    written = args.results / "motion.json"
    if written.exists() and not facts["fit_seconds"]:  # how long it took the first time
        facts |= {name: json.loads(written.read_text())[name] for name in ("fit_seconds", "seconds")}
    written.write_text(json.dumps(facts, indent=1) + "\n")
    draw(facts, split_of(args.output / "pictures", "test")).save(args.results / "motion.png")
    print(json.dumps(facts, indent=1))
    verdict = facts["comparisons"]["two_frames against first_frame_twice"]
    if not (verdict["difference"] > 0 and verdict["p_value"] < LEVEL):
        sys.exit(f"two frames do not beat one: p = {verdict['p_value']:.2g}, expected less than {LEVEL}")


def run(output: Path, *, seed: int = 0, pictures: dict[str, int] | None = None, steps: int | None = None) -> dict:
    """Everything up to the numbers.

    Args:
        output: Folder of data, caches, runs and answers.
        seed: Of pictures, order and new weights.
        pictures: Numbers of scenes, other than `MotionPictures` has them.
        steps: Optimizer steps of each arm, other than `motion.yaml` has them.
    """
    folder = output / "pictures"
    if not split_of(folder, SPLITS[-1]).rows.exists():  # written last
        MotionPictures(output=str(folder), seed=seed, **(pictures or {})).generate()
    for split in SPLITS:
        cache(output, split)
    seconds = fit(output, seed=seed, steps=steps)
    test = split_of(folder, "test")
    answered = {
        name: ask(
            output / trained / "export" / "language",
            test,
            output / "features" / trained / "test",
            side=SIDE,
            without_future=without_future,
        )
        for name, (trained, without_future) in ASKED.items()
    }
    _write(answered, output / "answers.json")
    sides = json.loads((folder / "test_sides.json").read_text())
    first, *others = ASKED
    others.append(RULE)
    answered[RULE] = best_threshold(answered[first], {id: second for id, (_, second) in sides.items()})
    return {
        "torch": torch.__version__,
        "seed": seed,
        "fit_seconds": seconds,
        "arms": {name: accuracy(given) for name, given in answered.items()},
        "comparisons": {
            f"{first} against {name}": compare(answered[first], answered[name]) for name in (*others, RULE)
        },
    }


def split_of(pictures: Path, split: str) -> Split:
    return Split(
        rows=pictures / f"{split}.json",
        images=pictures / split,
        second=pictures / f"{split}_second",
        index=pictures / f"{split}.parquet",
    )


def cache(output: Path, split: str) -> None:
    """Index a split, and cache SigLIP's features once and both frames' latents for each arm."""
    files = split_of(output / "pictures", split)
    source = [f"--rows={files.rows}", f"--images={files.images}", f"--base={BASE}"]
    if not files.index.exists():
        theworld(["data", "index", *source, *INDEX, f"--output={files.index}", "--num_workers=0"])
    features = output / "features" / "images" / split
    numbers = ["--dtype=float32", f"--precision={PRECISION}", "--device=cpu", "--features=[image_features]"]
    theworld(["data", "cache", *source, f"--index={files.index}", f"--output={features}", *numbers])
    for arm, frames in ARMS.items():
        own = output / "features" / arm / split
        if not own.exists():
            draft = own.with_name(f".{split}.draft")
            shutil.copytree(features, draft, dirs_exist_ok=True)
            draft.rename(own)  # whole or not there: a training may be reading it
        cache_frames(files, own, side=SIDE, frames=frames)


def fit(output: Path, *, seed: int, steps: int | None) -> dict[str, float]:
    """Train the arms side by side, with the same data order, seed and budget; seconds of those that were not there."""
    start, seconds = time.perf_counter(), {}
    missing = [arm for arm in ARMS if not (output / arm / "export" / "language").exists()]
    running = {arm: subprocess.Popen(command(output, arm, seed=seed, steps=steps)) for arm in missing}
    try:
        for arm, process in running.items():
            if process.wait() != 0:
                sys.exit(f"training {arm} ended with status {process.returncode}; its messages are above")
            seconds[arm] = round(time.perf_counter() - start, 1)
    finally:
        for process in running.values():
            process.terminate()  # of no effect on one that has ended
    return seconds


def command(output: Path, arm: str, *, seed: int, steps: int | None) -> list[str]:
    """`theworld fit` of an arm."""
    words = [f"--config={TINY}", f"--config={HERE / 'motion.yaml'}", f"--seed_everything={seed}", f"--data.seed={seed}"]
    words.append(f"--trainer.default_root_dir={output / arm}")
    files = split_of(output / "pictures", "train")
    words += [f"--data.train_path={files.rows}", f"--data.train_images={files.images}"]
    words += [f"--data.train_index={files.index}", f"--data.train_features={output / 'features' / arm / 'train'}"]
    words += [] if steps is None else [f"--model.stages.language.max_steps={steps}"]
    return [sys.executable, "-m", "theworld.cli", "fit", *words]


def _write(answered: dict[str, Answered], path: Path) -> None:
    first = next(iter(answered.values()))
    said = {name: given.answers for name, given in answered.items()}
    rows = [
        {"id": id, "truth": truth} | {name: answers[number] for name, answers in said.items()}
        for number, (id, truth) in enumerate(zip(first.ids, first.truths, strict=True))
    ]
    path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


def _cpu_seconds() -> float:
    """Of this process and those that it waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the two trainings side by side
    main()

"""One process, two, and runs that change between them: the losses of three stages are the same to 1e-12.

    python -m experiments.faults.elasticity

The tiny model of the tests in float64, on the CPU: one process, DDP and FSDP2 on two (gloo), and chains that stop and
go on from their newest checkpoint with another number of processes or another strategy. The control is one process
whose learning rates are 1 + 1e-10 times the others': a fault that small must be seen. Writes `results/elasticity.csv`
and `.png`.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch

from tests.tiny import osd_row, write_osd
from tests.training.conftest import DATA, MODEL, write_tiny_base
from tests.training.parallel.staged_run import run_stages, stages
from tests.training.ranks import Ranks

RESULTS = Path(__file__).parent / "results"
LENGTHS = (6, 6, 8)
FAULT = 1 + 1e-10
TOLERANCE = 1e-12
ZERO = 1e-17
"""Where the logarithmic axis shows a difference of exactly 0."""


class Part(NamedTuple):
    """Steps of a run that one start made."""

    how: str
    until: int

    @property
    def strategy(self) -> str:
        return {"1": "auto", "DDP ×2": "ddp_find_unused_parameters_true", "FSDP2 ×2": "fsdp2"}[self.how]

    @property
    def processes(self) -> int:
        return 1 if self.how == "1" else 2


END = sum(LENGTHS)
ONE, DDP, FSDP2, CONTROL = "one process", "DDP ×2", "FSDP2 ×2", "control: one process, learning rates × (1 + 1e-10)"
# Changes in the middle of each stage, and at both boundaries (steps 6 and 12).
RUNS = {
    ONE: [Part("1", END)],
    DDP: [Part("DDP ×2", END)],
    FSDP2: [Part("FSDP2 ×2", END)],
    "DDP ×2 → 1 → FSDP2 ×2": [Part("DDP ×2", 3), Part("1", 9), Part("FSDP2 ×2", END)],
    "FSDP2 ×2 → 1 → DDP ×2": [Part("FSDP2 ×2", 6), Part("1", 12), Part("DDP ×2", END)],
    "FSDP2 ×2 → 1 → FSDP2 ×2": [Part("FSDP2 ×2", 8), Part("1", 15), Part("FSDP2 ×2", END)],
    "1 → DDP ×2 → FSDP2 ×2 → 1": [Part("1", 4), Part("DDP ×2", 10), Part("FSDP2 ×2", 16), Part("1", END)],
    CONTROL: [Part("1", END)],
}
STYLES = dict(
    zip(
        list(RUNS)[1:],
        [
            *(("s", "tab:blue"), ("D", "tab:orange"), ("o", "tab:green"), ("^", "tab:red")),
            *(("v", "tab:purple"), ("P", "tab:brown"), ("x", "tab:gray")),
        ],
        strict=True,
    )
)


def sources(folder: Path) -> dict[str, dict[str, object]]:
    """Base, samples and settings of data and model, as `run_stages` takes them."""
    base, rows = folder / "base", folder / "rows"
    for path in (base, rows):
        path.mkdir()
    write_tiny_base(base)
    samples = [osd_row(i, turns=1 + i % 2, answer=("Yes", "No")[i % 2] + "." * (1 + i % 3)) for i in range(26)]
    path, images = write_osd(rows, samples)
    data = {"base": str(base)} | DATA | {"train_path": str(path), "train_images": str(images)}
    return {"data": data, "model": {"base": str(base)} | MODEL}


def made(name: str, folder: Path, settings: dict[str, dict[str, object]]) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """One line a step, and the weights at the end: each part starts from what the one before saved last."""
    lines: list[dict] = []
    checkpoint, record = None, {}
    for number, part in enumerate(RUNS[name]):
        place = folder / f"{list(RUNS).index(name)}-{number}"
        place.mkdir()
        options = {
            "lengths": LENGTHS,
            "max_steps": part.until,
            "rate": FAULT if name == CONTROL else 1.0,
            "ckpt_path": checkpoint,
        }
        Ranks(run_stages, world_size=part.processes, folder=place, strategy=part.strategy, **settings, **options).wait()
        record = torch.load(place / "record.pt", weights_only=True)
        begin = len(lines)
        assert list(record["losses"]) == list(range(begin, part.until)), f"{name}: {list(record['losses'])}"
        for step, loss in record["losses"].items():
            lines.append({"run": name, "step": step + 1, "part": number, "how": part.how, "loss": loss})
        checkpoint = str(place / "saved" / f"step={part.until}.ckpt")
    return lines, record["weights"]


def table_of(runs: dict[str, list[dict]]) -> list[dict]:
    """Every step of every run beside that of the run of one process."""
    expected = {line["step"]: line["loss"] for line in runs[ONE]}
    names = [name for name, steps in zip(stages(LENGTHS), LENGTHS, strict=True) for _ in range(steps)]
    return [
        line
        | {"stage": names[line["step"] - 1], "one_process": expected[line["step"]]}
        | {"difference": abs(line["loss"] - expected[line["step"]])}
        for lines in runs.values()
        for line in lines
    ]


def worst(table: list[dict], *names: str) -> float:
    return max(line["difference"] for line in table if line["run"] in names)


def draw(table: list[dict], path: Path) -> None:
    """Losses above with the changes marked, differences below; the runs of a step stand side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 8.5), sharex=True, layout="constrained")
    one = {line["step"]: line["loss"] for line in table if line["run"] == ONE}
    top.hlines(list(one.values()), [s - 0.42 for s in one], [s + 0.42 for s in one], color="black", lw=1.5, label=ONE)
    bottom.axhline(TOLERANCE, color="black", lw=1, ls="--", label=f"limit: {TOLERANCE:g}")
    for number, (name, (mark, color)) in enumerate(STYLES.items()):
        shift = 0.11 * (number - len(STYLES) // 2)
        lines = [line for line in table if line["run"] == name]
        changes = [part.until for part in RUNS[name][:-1]]
        look = {"marker": mark, "color": color, "mfc": "none", "ls": "none"}
        differences = [max(line["difference"], ZERO) for line in lines]
        below = f"{name}: {worst(table, name):.1e}"
        for axis, values, label in ((top, [line["loss"] for line in lines], name), (bottom, differences, below)):
            axis.plot([line["step"] + shift for line in lines], values, **look, ms=4.5, label=label)
            axis.plot([step + shift for step in changes], [values[step - 1] for step in changes], **look, ms=14, mew=2)
    top.plot(
        [], [], "o", ms=14, mew=2, mfc="none", color="gray", label="large: saved here, resumed by the next of its chain"
    )
    _finish(top, bottom)
    figure.savefig(path, dpi=120)


def _finish(top, bottom) -> None:
    """Stages, labels with units, legends."""
    for axis in (top, bottom):
        for boundary in list(accumulate(LENGTHS))[:-1]:
            axis.axvline(boundary + 0.5, color="gray", lw=0.8, ls=":")
    start = 0
    for stage, steps in zip(stages(LENGTHS), LENGTHS, strict=True):
        place = top.get_xaxis_transform()
        top.text(start + (steps + 1) / 2, 1.02, stage, transform=place, ha="center", va="bottom", fontsize=10)
        start += steps
    top.set_ylabel("training loss (nats a target token)")
    top.legend(fontsize=8, title="run (×2: two processes)", title_fontsize=8, loc="lower left")
    bottom.set_yscale("log")
    bottom.set_ylim(ZERO / 4, 1e-4)
    powers = range(-16, -7, 2)
    bottom.set_yticks([ZERO, *(10.0**power for power in powers)], ["0", *(f"$10^{{{power}}}$" for power in powers)])
    bottom.set_xticks(range(1, END + 1))
    bottom.set_xlim(0.3, END + 0.7)
    bottom.set(xlabel="optimizer step", ylabel="|loss − loss of one process|\n(nats a target token)")
    bottom.legend(
        fontsize=8, title="largest difference (nats a target token)", title_fontsize=8, loc="upper left", ncols=2
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--keep", action="store_true", help="keep the runs' folders")
    arguments = parser.parse_args()
    start, folder = time.perf_counter(), Path(tempfile.mkdtemp(prefix="elasticity_"))
    settings, runs, weights = sources(folder), {}, {}
    for name in RUNS:
        runs[name], weights[name] = made(name, folder, settings)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    table = table_of(runs)
    with (arguments.output / "elasticity.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    draw(table, arguments.output / "elasticity.png")
    for name in list(RUNS)[1:]:
        assert weights[name].keys() == weights[ONE].keys()
        apart = max(float((weight - weights[ONE][key]).abs().max()) for key, weight in weights[name].items())
        print(f"{name}: largest difference {worst(table, name):.2e} nats, of a final weight {apart:.2e}")
    equal = [name for name in RUNS if name not in (ONE, CONTROL)]
    count = sum(line["run"] in equal for line in table)
    print(f"{count} losses of {len(equal)} runs, largest difference {worst(table, *equal):.2e}")
    print(f"{time.perf_counter() - start:.0f} s")
    if not arguments.keep:
        shutil.rmtree(folder)
    assert worst(table, *equal) <= TOLERANCE < worst(table, CONTROL)


if __name__ == "__main__":
    main()

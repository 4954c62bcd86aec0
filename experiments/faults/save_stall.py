"""How long a save takes, and how long training stands still for it: on the training thread and in the background.

    python -m experiments.faults.save_stall                                        # two CPU cores, 0.5 GB
    python -m experiments.faults.save_stall --device cuda --gigabytes 16 --folder /local/disk --name save_stall_gpu

The state is weights and both moments of AdamW in float32, in tensors of 64 MB, on the device. A step multiplies
matrices for about `--step_seconds` and waits for the device, as training does when it logs. The save is the plugin's
own, with manifest, hashes and fsync; the host's memory for those in the background is allocated (on a GPU: page-locked)
in the background as well, from the first step on. Writes `results/<name>.csv` and `.png`.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

import torch

from theworld.training.checkpoints.background import BackgroundSaves
from theworld.training.checkpoints.directory import remove_checkpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories

RESULTS = Path(__file__).parent / "results"
TENSOR_BYTES = 64 << 20


class Timed(CheckpointDirectories):
    """The plugin, which notes how long each save took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def save_checkpoint(self, checkpoint, path, storage_options=None):  # type: ignore[no-untyped-def]
        start = time.perf_counter()
        super().save_checkpoint(checkpoint, path, storage_options)
        self.seconds.append(time.perf_counter() - start)


def calibrated(device: torch.device, seconds: float) -> int:
    """How many products of two matrices take about that long."""
    matrix = torch.randn(1024, 1024, device=device)
    for repeats in (2, 20):  # the first is a warm-up
        start = time.perf_counter()
        for _ in range(repeats):
            matrix @ matrix
        wait_for(device)
    return max(1, round(seconds / ((time.perf_counter() - start) / 20)))


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(arguments: argparse.Namespace, folder: Path, *, background: bool) -> tuple[list[dict[str, object]], Timed]:
    """Seconds of every step, and of the save that began after it as training saw it."""
    device = torch.device(arguments.device)
    numbers = TENSOR_BYTES // 4
    count = max(1, round(arguments.gigabytes * 1e9 / TENSOR_BYTES))
    state = {"state_dict": {str(i): torch.zeros(numbers, device=device) for i in range(count)}}
    matrix, repeats = torch.randn(1024, 1024, device=device), calibrated(device, arguments.step_seconds)
    timed = Timed()
    plugin = BackgroundSaves(timed) if background else timed
    lines = []
    for step in range(1, arguments.steps + 1):
        start = time.perf_counter()
        for _ in range(repeats):
            matrix @ matrix
        state["state_dict"]["0"].add_(1.0)
        wait_for(device)
        trained = time.perf_counter()
        if step == 1 and isinstance(plugin, BackgroundSaves):
            plugin.reserve(state)  # as the callback does when the optimizer has its moments
        saved = step % arguments.saved_every == 0
        if saved:
            plugin.save_checkpoint(state, folder / f"step={step}.ckpt")
            plugin.remove_checkpoint(folder / f"step={step - arguments.saved_every}.ckpt")
        end = time.perf_counter()
        lines.append(
            {"step": step, "step_seconds": trained - start, "stall_seconds": end - trained, "saved": int(saved)}
        )
    plugin.teardown()
    remove_checkpoint(folder / f"step={arguments.steps - arguments.steps % arguments.saved_every}.ckpt")
    return lines, timed


def draw(table: dict[str, list[dict[str, object]]], saves: dict[str, Timed], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.2), layout="constrained", gridspec_kw={"width_ratios": [2, 1]}
    )
    for (mode, lines), color in zip(table.items(), ("tab:red", "tab:blue"), strict=True):
        seconds = [line["step_seconds"] + line["stall_seconds"] for line in lines]
        left.plot([line["step"] for line in lines], seconds, marker=".", lw=1, color=color, label=mode)
    left.set(xlabel="training step", ylabel="seconds from one step to the next", ylim=(0, None))
    left.legend(fontsize=9)
    left.set_title(title, fontsize=10)
    bars = {}
    for mode, lines in table.items():
        stalls = [line["stall_seconds"] for line in lines if line["saved"]]
        bars[f"{mode}\nwritten in"] = statistics.median(saves[mode].seconds)
        bars[f"{mode}\nfirst stall"] = stalls[0]
        bars[f"{mode}\nlater stalls"] = statistics.median(stalls[1:])
    drawn = right.bar(range(len(bars)), list(bars.values()), color=["tab:red"] * 3 + ["tab:blue"] * 3)
    right.bar_label(drawn, fmt="%.2f s", fontsize=8)
    right.set_xticks(range(len(bars)), list(bars), fontsize=7, rotation=35)
    right.set_ylabel("seconds a save (median)")
    right.margins(y=0.15)
    figure.savefig(path, dpi=120)
    print({name.replace("\n", " "): round(value, 4) for name, value in bars.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--gigabytes", type=float, default=0.5)
    parser.add_argument("--step_seconds", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--saved_every", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="where the checkpoints are written")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--name", default="save_stall")
    arguments = parser.parse_args()
    table, saves = {}, {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for mode in ("on the training thread", "in the background"):
            table[mode], saves[mode] = measure(arguments, Path(folder), background=mode == "in the background")
    with (arguments.output / f"{arguments.name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["saves", *table["in the background"][0]])
        writer.writeheader()
        writer.writerows({"saves": mode} | line for mode, lines in table.items() for line in lines)
    on = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    title = f"{arguments.gigabytes:g} GB from {on}, a save every {arguments.saved_every} steps"
    draw(table, saves, title, arguments.output / f"{arguments.name}.png")


if __name__ == "__main__":
    main()

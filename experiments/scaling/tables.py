"""Table and figure of a scaling study.

python -m experiments.scaling.tables results/h100_x2.json           # h100_x2.md and h100_x2.png beside it
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TOLERANCE = 5e-3
"""Nats of a loss of about 12 by which runs in bfloat16 on other numbers of devices may differ: the last bits of sums of
gradients in another order, six steps on. `agreement` says what was found."""

GOALS = {"projection": 0.95, "vision": 0.95, "language": 0.85}
"""Weak-scaling efficiency that is wanted on NVLink."""


def efficiency(runs: list[dict[str, Any]], run: dict[str, Any]) -> float:
    """Tokens a second and device, over those of one device."""
    one = next(r for r in runs if r["stage"] == run["stage"] and r["devices"] == 1)
    return run["weak"]["tokens_per_second_and_device"] / one["weak"]["tokens_per_second_and_device"]


def agreement(runs: list[dict[str, Any]], run: dict[str, Any]) -> float:
    """Largest difference of a step's loss to one device's, for the same global batch."""
    one = next(r for r in runs if r["stage"] == run["stage"] and r["devices"] == 1)
    return max(abs(loss - one["agree"]["losses"][step]) for step, loss in run["agree"]["losses"].items())


def resumed(runs: list[dict[str, Any]]) -> list[tuple[str, str, int, float]]:
    """Stage, devices that wrote, devices that went on, and the largest difference of the losses to the writer's."""
    found = []
    for run in runs:
        for written_on, again in run.get("resumed", {}).items():
            writer = next(r for r in runs if r["stage"] == run["stage"] and r["devices"] == int(written_on))
            differences = [abs(loss - writer["agree"]["losses"][step]) for step, loss in again["losses"].items()]
            found.append((run["stage"], written_on, run["devices"], max(differences)))
    return found


def write_table(found: dict[str, Any], path: Path) -> None:
    """Markdown."""
    runs = found["runs"]
    lines = [
        f"{runs[0]['device']}, torch {runs[0]['torch']}; rows of {runs[0]['tokens']:,} tokens, one a device and step",
        "",
        "| stage | strategy | GPUs | s a step | tokens/s a GPU | efficiency | peak GiB a GPU | communication ms "
        "| of it exposed | save s | checkpoint GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in sorted(runs, key=lambda r: ([*GOALS].index(r["stage"]), r["devices"])):
        weak, agree = run["weak"], run["agree"]
        cells = [run["stage"], run["strategy"], str(run["devices"]), f"{weak['seconds']:.3f}"]
        cells += [f"{weak['tokens_per_second_and_device']:,.0f}", f"{efficiency(runs, run):.1%}"]
        cells += [f"{weak['peak_gib']:.1f}", f"{weak['communication_ms']:.1f}"]
        cells += [f"{weak['exposed_communication_ms']:.1f}", f"{agree['save_seconds']:.1f}"]
        cells += [f"{agree['checkpoint_bytes'] / 1e9:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Same global batch of {runs[0]['global_rows']} rows a step, largest difference to one GPU "]
    lines[-1] += f"(tolerance stated beforehand: {TOLERANCE} nats):"
    lines.append("")
    lines += ["| stage | GPUs | largest difference of a loss, nats | last loss |", "|---|---|---|---|"]
    for run in (r for r in runs if r["devices"] > 1):
        last = list(run["agree"]["losses"].values())[-1]
        found_here = agreement(runs, run)
        said = f"{found_here:.2e}" if found_here <= TOLERANCE else f"**{found_here:.2e}, above it**"
        lines.append(f"| {run['stage']} | {run['devices']} | {said} | {last:.4f} |")
    lines += [
        "",
        "| stage | saved on | resumed on | largest difference of a loss, nats | restore s |",
        "|---|---|---|---|---|",
    ]
    for stage, writer, reader, difference in resumed(runs):
        run = next(r for r in runs if (r["stage"], r["devices"]) == (stage, reader))
        seconds = run["resumed"][writer]["restore_seconds"]
        lines.append(f"| {stage} | {writer} | {reader} | {difference:.2e} | {seconds:.1f} |")
    if killed := found.get("killed_rank"):
        lines += ["", f"Rank 1 of {killed['processes']} ({killed['backend']}) killed: {json.dumps(killed)}"]
    path.write_text("\n".join(lines) + "\n")


def write_figure(found: dict[str, Any], path: Path) -> None:
    """Efficiency, step time with communication, and memory by stage and number of devices."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    runs = found["runs"]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for stage, color in zip(GOALS, ("tab:blue", "tab:orange", "tab:green"), strict=True):
        own = sorted((r for r in runs if r["stage"] == stage), key=lambda r: r["devices"])
        if not own:
            continue
        sizes = [r["devices"] for r in own]
        axes[0].plot(
            sizes, [efficiency(runs, r) for r in own], "o-", color=color, label=f"{stage} ({own[0]['strategy']})"
        )
        axes[0].axhline(GOALS[stage], color=color, ls=":", lw=1)
        axes[1].plot(sizes, [r["weak"]["seconds"] * 1000 for r in own], "o-", color=color, label=f"{stage}: a step")
        exposed = [r["weak"]["exposed_communication_ms"] for r in own]
        axes[1].plot(sizes, exposed, "x--", color=color, label=f"{stage}: exposed communication")
        axes[2].plot(sizes, [r["weak"]["peak_gib"] for r in own], "o-", color=color, label=stage)
    every = sorted({r["devices"] for r in runs})
    axes[0].set(ylabel="tokens/s a GPU, against one GPU", ylim=(0, 1.1), title="weak scaling (dotted: goal)")
    axes[1].set(ylabel="milliseconds", title="step and exposed communication")
    axes[2].set(ylabel="peak GiB a GPU", title="memory")
    for axis in axes[1:]:
        axis.set_ylim(0, 1.1 * max(max(line.get_ydata()) for line in axis.get_lines()) or 1)  # no memory on a CPU
    for axis in axes:
        axis.set(xlabel="GPUs", xticks=every)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    found = json.loads(path.read_text())
    write_table(found, path.with_suffix(".md"))
    write_figure(found, path.with_suffix(".png"))


if __name__ == "__main__":
    main()

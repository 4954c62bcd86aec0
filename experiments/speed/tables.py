"""Results of `step.py` as a table and a picture.

python experiments/speed/tables.py results/2026-11-24_h200_step.json --output step      # step.md and step.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

Results = dict[str, dict[str, Any]]


def variants(paths: list[Path]) -> tuple[str, Results]:
    """What was run on, and every variant; of one that is in several files, the first."""
    found: Results = {}
    machines: list[str] = []
    for path in paths:
        read = json.loads(path.read_text())
        machine = f"{read['card']}, torch {read['torch']}, transformers {read['transformers']}"
        machines += [machine] if machine not in machines else []
        found = {name: result for name, result in read.items() if isinstance(result, dict)} | found
    return "; ".join(machines), found


def table(results: Results) -> str:
    """Markdown; each time beside the first variant's."""
    seconds = next(iter(results.values()))["seconds"]
    lines = [
        "| variant | s | times the first | peak GiB | first step s | launches | loss differs | gradient cosine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in results.items():
        lines.append(
            f"| {name}: {one['what']} | {one['seconds']:.3f} | {seconds / one['seconds']:.2f} "
            f"| {one['peak_gib']:.1f} | {one['first_step']:.0f} | {one['launches'] or ''} "
            f"| {one['loss_difference']:.1e} | {one.get('gradient_cosine', float('nan')):.4f} |"
        )
    return "\n".join(lines) + "\n"


def picture(results: Results, machine: str, path: Path) -> None:
    """Seconds and memory side by side."""
    names = list(results)[::-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 1.2 + 0.42 * len(names)), sharey=True)
    for axis, key, unit, colour in (
        (left, "seconds", "s a step", "#31688e"),
        (right, "peak_gib", "peak GiB", "#b5651d"),
    ):
        values = [results[name][key] for name in names]
        bars = axis.barh(names, values, color=colour)
        axis.bar_label(bars, fmt="%.3f" if key == "seconds" else "%.1f", padding=3)
        axis.set_xlabel(unit)
        axis.set_xlim(0, 1.15 * max(values))
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"One training step, 2 × 5076 tokens ({machine})", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--output", required=True, help="path without its ending")
    arguments = parser.parse_args()
    machine, results = variants(arguments.results)
    Path(f"{arguments.output}.md").write_text(f"{machine}\n\n{table(results)}")
    picture(results, machine, Path(f"{arguments.output}.png"))


if __name__ == "__main__":
    main()

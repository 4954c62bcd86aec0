"""The plan beside what was measured: a table and a picture of both, from their JSON files alone.

python -m experiments.planning.compare experiments/planning/predicted.json measured.json --output compared
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

WITHIN = 0.05
"""How close every plan has to be."""


def compared(predicted: dict[str, Any], measured: dict[str, Any]) -> list[dict[str, Any]]:
    """One line a configuration that is in both; `error` is that of allocated memory, None where it ran out of it."""
    lines = []
    for name, found in measured["configurations"].items():
        if name not in predicted["configurations"]:
            continue
        planned = predicted["configurations"][name]
        line = {
            "name": name,
            "planned_gib": planned["allocated_gib"],
            "needs_gb": planned["needs_gb"],
            "cap_gb": found["cap_gb"],
            "planned_to_fit": found["planned_to_fit"],
            "out_of_memory": found["out_of_memory"],
            "measured_gib": None if found["out_of_memory"] else found["allocated_gib"],
            "reserved_gib": None if found["out_of_memory"] else found["reserved_gib"],
            "outside_gib": found["outside_gib"],
        }
        line["error"] = None if found["out_of_memory"] else line["planned_gib"] / line["measured_gib"] - 1
        lines.append(line)
    return lines


def markdown(lines: list[dict[str, Any]], measured: dict[str, Any]) -> str:
    """The table, and what follows from it."""
    versions = f"{measured['card']}, torch {measured['torch']}, transformers {measured['transformers']}"
    table = [
        f"Peak memory of a step, planned and measured: {versions}.",
        "",
        "| configuration | planned, GiB | measured, GiB | error | reserved, GiB | outside PyTorch, GiB | card |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for line in lines:
        measured_cells = ("out of memory", "–", "–")
        if not line["out_of_memory"]:
            measured_cells = (f"{line['measured_gib']:.2f}", f"{line['error']:+.1%}", f"{line['reserved_gib']:.2f}")
        card = "whole"
        if line["cap_gb"]:
            outcome = "ran" if not line["out_of_memory"] else "refused"
            wanted = "ran" if line["planned_to_fit"] else "refused"
            card = f"{line['cap_gb']:g} GB, planned {line['needs_gb']:.1f} GB: {outcome}, {wanted} was planned"
        cells = (line["name"], f"{line['planned_gib']:.2f}", *measured_cells, f"{line['outside_gib']:.2f}", card)
        table.append(f"| {' | '.join(cells)} |")
    errors = [abs(line["error"]) for line in lines if line["error"] is not None]
    wrong = [line["name"] for line in lines if line["out_of_memory"] == line["planned_to_fit"]]
    within = sum(error <= WITHIN for error in errors)
    table += ["", f"{within} of {len(errors)} plans are within {WITHIN:.0%}; the largest error is {max(errors):.1%}."]
    table.append(f"Wrong about what fits: {', '.join(wrong) or 'none'}.")
    return "\n".join(table) + "\n"


def draw(lines: list[dict[str, Any]], path: Path, card: str) -> None:
    """Bars of both, longest name left."""
    shown = [line for line in lines if not line["out_of_memory"]]
    figure, (bars, errors) = plt.subplots(1, 2, figsize=(11, 0.42 * len(shown) + 1.6), sharey=True, width_ratios=[3, 1])
    places = range(len(shown))
    bars.barh([p - 0.2 for p in places], [line["planned_gib"] for line in shown], height=0.4, label="planned")
    bars.barh([p + 0.2 for p in places], [line["measured_gib"] for line in shown], height=0.4, label="measured")
    bars.set_yticks(list(places), [line["name"] for line in shown])
    bars.invert_yaxis()
    bars.set_xlabel("peak memory allocated (GiB)")
    bars.legend()
    errors.axvspan(-100 * WITHIN, 100 * WITHIN, color="0.9")
    errors.plot([100 * line["error"] for line in shown], list(places), "o", color="black")
    errors.axvline(0, color="grey", linewidth=0.8)
    errors.set_xlabel("error of the plan (%)")
    figure.suptitle(f"Planned on a CPU, measured on {card}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predicted", type=Path)
    parser.add_argument("measured", type=Path, nargs="+", help="files of measure.py; of one name the last one counts")
    parser.add_argument("--output", type=Path, required=True, help="without suffix: .md, .json and .png are written")
    arguments = parser.parse_args()
    files = [json.loads(path.read_text()) for path in arguments.measured]
    measured = files[-1] | {"configurations": {k: v for one in files for k, v in one["configurations"].items()}}
    lines = compared(json.loads(arguments.predicted.read_text()), measured)
    text = markdown(lines, measured)
    arguments.output.with_suffix(".md").write_text(text)
    arguments.output.with_suffix(".json").write_text(json.dumps(lines, indent=1) + "\n")
    draw(lines, arguments.output.with_suffix(".png"), measured["card"])
    print(text)


if __name__ == "__main__":
    main()

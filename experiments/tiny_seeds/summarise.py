"""Five seeds of the tiny run → one table: accuracy of each category beside the best constant answer, mean and range.

python experiments/tiny_seeds/summarise.py RUN_DIRECTORY ...
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

VALIDATION = re.compile(r"Stage (\w+): validation loss ([\d.]+) before, ([\d.]+) after")


def main(directories: list[Path]) -> None:
    summaries = [json.loads(next(d.rglob("summary.json")).read_text()) for d in directories]
    print("| category | n a seed | accuracy, mean (lowest to highest) | best constant, mean |\n|---|---|---|---|")
    for name in summaries[0]["rows"]:
        rows = [summary["rows"][name] for summary in summaries if name in summary["rows"]]
        found = [100 * row["accuracy"] for row in rows]
        constant = [100 * row["best_constant"] for row in rows]
        counts = sorted({row["n"] for row in rows})
        print(
            f"| {name} | {counts[0]}–{counts[-1]} | {mean(found):.1f} ({min(found):.1f} to {max(found):.1f}) "
            f"| {mean(constant):.1f} |"
        )
    print("\n| run | overall | best constant | p by images | validation loss of each stage |\n|---|---|---|---|---|")
    for directory, summary in zip(directories, summaries, strict=True):
        overall = summary["rows"]["overall"]
        log = directory.with_name(directory.name + ".log").read_text()
        losses = ", ".join(f"{stage} {before} → {after}" for stage, before, after in VALIDATION.findall(log))
        print(
            f"| {directory.name} | {100 * overall['accuracy']:.1f} | {100 * overall['best_constant']:.1f} "
            f"| {summary['paired_test']['p_value']:.2g} | {losses} |"
        )


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])

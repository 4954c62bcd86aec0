"""Finished runs → `report.md`, `report.png`, `report.json`; the outcome of every question in `answers_seed*.csv`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.ablations.compare import Comparison, Evidence, compare
from experiments.ablations.figure import draw
from experiments.ablations.folder import PREDICTIONS, RESULT, RunFolder, write
from experiments.ablations.grid import Grid
from experiments.ablations.page import page
from theworld.evaluation.answers import SCORER_VERSION
from theworld.evaluation.predictions import read_predictions
from theworld.evaluation.report import Report

Runs = Mapping[tuple[str, int], RunFolder]
"""Arm and seed → folder."""


def write_report(grid: Grid, runs: Runs, output: Path, *, command: str) -> Comparison:
    """Score the answers of all runs, compare the arms, and write the report.

    Args:
        grid: Of the runs.
        runs: All of them, finished.
        output: Folder of the report.
        command: Options that the grid was started with.

    Raises:
        ValueError: A run is not finished or was changed, or arms answered different questions.
    """
    results = {}
    for (arm, seed), folder in runs.items():
        found = folder.result()
        if found is None:
            raise ValueError(f"{folder.path}: found no {RESULT}, expected a finished run; run the grid first")
        results[arm, seed] = found
    reports = {key: Report.from_predictions(read_predictions(f.path / PREDICTIONS)) for key, f in runs.items()}
    comparison = compare(reports, reference=grid.reference)
    asks = {arm: _asks(file) for arm, file in grid.arms.items()}
    made = _made(grid, runs, command)
    write(output / "report.md", page(comparison, asks=asks, runs=_table(comparison, results), made=made))
    facts = _facts(comparison) | {"runs": {f"{arm}-seed{seed}": found for (arm, seed), found in results.items()}}
    write(output / "report.json", json.dumps(facts, indent=1) + "\n")
    (output / "report.png").write_bytes(draw(comparison))
    for seed in comparison.seeds:
        write(output / f"answers_seed{seed}.csv", _answers({arm: reports[arm, seed] for arm in grid.arms}))
    return comparison


def _asks(file: Path | None) -> str:
    """The comment that an arm's file begins with."""
    if file is None:
        return "Nothing: the training as it is."
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    if not lines:
        raise ValueError(f"{file}: found no comment in the first line, expected what the arm is and asks; add one")
    return " ".join(lines)


def _table(comparison: Comparison, results: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """Seconds and resumes of every run."""
    lines = [
        "Seconds of each run (of its last process, where it was killed and went on; how often in brackets):",
        "",
        f"| arm | {' | '.join(f'seed {seed}' for seed in comparison.seeds)} |",
        "|---|" + "---|" * len(comparison.seeds),
    ]
    for arm in comparison.accuracies:
        cells = []
        for seed in comparison.seeds:
            found = results[arm, seed]
            cells.append(f"{found['seconds_of_last_process']:.0f}" + (f" ({n})" if (n := found["resumes"]) else ""))
        lines.append(f"| `{arm}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _made(grid: Grid, runs: Runs, command: str) -> str:
    code = runs[grid.reference, grid.seeds[0]].settings["code"]
    versions = ", ".join(f"{name} {version}" for name, version in code.items() if name != "source_sha256")
    budget = ", then ".join(f"`{file.name}`" for file in grid.budget)
    return (
        f"Made by `python -m experiments.ablations.run {command}`; budget {budget}; each run with one thread. "
        f"{versions}; sources {code['source_sha256'][:12]}; scorer {SCORER_VERSION}. "
        "`answers_seed*.csv` has the outcome of every question, `report.json` these numbers for programs."
    )


def _facts(comparison: Comparison) -> dict[str, Any]:
    """The report in plain JSON types."""
    return {
        "reference": comparison.reference,
        "seeds": list(comparison.seeds),
        "alarms": list(comparison.alarms),
        "accuracies": {
            arm: {
                part: {"by_seed": a.by_seed, "mean": a.mean, "best_constant": a.best_constant, "n": a.n}
                for part, a in parts.items()
            }
            for arm, parts in comparison.accuracies.items()
        },
        "differences": {
            arm: {
                part: {
                    "by_seed": d.by_seed,
                    "mean": d.mean,
                    "questions": _evidence(d.questions),
                    "training": None if d.training is None else _evidence(d.training),
                    "verdict": d.verdict,
                }
                for part, d in parts.items()
            }
            for arm, parts in comparison.differences.items()
        },
    }


def _evidence(found: Evidence) -> dict[str, Any]:
    interval = [found.interval.low, found.interval.high]
    return {"interval_95": interval, "p_value": found.p_value, "p_holm": found.p_holm}


def _answers(reports: Mapping[str, Report]) -> str:
    """A line a question: 1 where an arm, or the best constant answer, is right."""
    first = next(iter(reports.values()))
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["id", "picture", "category", "best_constant", *reports])
    for place, prediction in enumerate(first.predictions):
        question = prediction.question
        right = [int(report.scores[place].correct) for report in reports.values()]
        lines.writerow([question.id, question.image_id, question.qa_category, int(first.constant_right[place]), *right])
    return text.getvalue()

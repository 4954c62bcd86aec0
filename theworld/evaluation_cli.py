"""`theworld score …`: what is done with a model's answers, each command a typed function.

    theworld score predictions.jsonl --output scored
    theworld evaluate --model outputs/stage3/export/language --benchmark srgpt --path SpatialRGPT-Bench_v1.json \
        --images omni3d --output outputs/srgpt

A command's positional arguments and flags are its function's parameters; `theworld score --help` lists them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser
from rich import print as rich_print

from theworld.evaluation.evaluate import evaluate
from theworld.evaluation.report import Report, read_predictions


def evaluation_command(args: Sequence[str]) -> None:
    """Run `theworld <command>` with these arguments; a mistake in the data ends it with a message and status 1."""
    name, *words = args
    command = COMMANDS[name]
    parser = ArgumentParser(prog=f"theworld {name}", description=(command.__doc__ or "").splitlines()[0])
    parser.add_function_arguments(command, as_group=False, as_positional=True)
    arguments = parser.parse_args(words).as_dict()
    try:
        command(**arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"theworld {name}: {error}")


def score(predictions: str, *, output: str) -> None:
    """Score the answers in a JSONL file: print the table, write `scores.jsonl` and `summary.json`.

    Args:
        predictions: Rows with `id`, `question`, `ground_truth`, `prediction`, `qa_type` and `qa_category`.
        output: Folder for the two files.
    """
    report = Report.from_predictions(read_predictions(predictions))
    rich_print(report.table())
    for path in report.write(output):
        print(f"Wrote {path}")


COMMANDS: dict[str, Callable[..., None]] = {"score": score, "evaluate": evaluate}
"""Commands by name; `theworld.cli` sends them here."""

"""`theworld score …`, `evaluate …`, `audit …`: what is done with a model's answers, each command a typed function.

    theworld score predictions.jsonl --output scored
    theworld evaluate --model outputs/stage3/export/language --benchmark srgpt --path SpatialRGPT-Bench_v1.json \
        --images omni3d --output outputs/srgpt
    theworld audit export --rows test.json --images test --output audit

A command's positional arguments and flags are its function's parameters; `theworld score --help` lists them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser

from theworld.evaluation.audit.command import audit_model
from theworld.evaluation.evaluate import evaluate
from theworld.evaluation.scoring import score


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


COMMANDS: dict[str, Callable[..., None]] = {"score": score, "evaluate": evaluate, "audit": audit_model}
"""Commands by name; `theworld.cli` sends them here."""

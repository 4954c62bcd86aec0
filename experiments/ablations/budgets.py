"""Accuracy against cost: finished runs of a grid, asked at every number of world tokens a frame.

    python -m experiments.ablations.budgets --grid GRID --output FOLDER

The arms of `--asked` are read with each number, by `theworld evaluate`; what other arms answered at their own number
stands in `answers_seed*.csv`, as this grid's report or an earlier one's wrote it (`--answers`). Writes `budgets.csv` (a
line a model and number), `budgets.md` (the last arm of `--asked` beside each other model at the same number, with a
paired test over all seeds), `budget_answers_seed*.csv` (the outcome of every question) and `budgets.png`. Answers are
kept in `asked/`, so that it goes on where it was killed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import yaml
from transformers import PretrainedConfig

from experiments.ablations.budget_figure import draw
from experiments.ablations.folder import PREDICTIONS, write
from experiments.ablations.grid import Grid, Values
from theworld.data.indexing.build import build_index
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.osd import OSDRows
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore
from theworld.data.synthetic import SyntheticScenes
from theworld.data.synthetic.scenes import SyntheticPaths
from theworld.evaluation.evaluate import evaluate
from theworld.evaluation.paired_test import paired_test
from theworld.evaluation.predictions import read_predictions
from theworld.evaluation.report import Report
from theworld.models.configuration import TheWorldConfig
from theworld.models.flops import Geometry, useful_flops

TOKENS = (64, 16, 4, 1)
"""World tokens a frame, the first of which is what the arms of `--asked` have."""

Outcomes = dict[str, int]
"""Question → 1 if it was answered right."""


@dataclass(frozen=True)
class Point:
    """A model that was asked at one number of world tokens.

    Attributes:
        arm: How it was trained.
        seed: Of its training.
        tokens: World tokens of a prompt.
        right: Right answers.
        questions: Of so many.
        prompt_tokens: Tokens of a prompt, on average.
        gflop: Useful operations of a prompt's pass through the model in 10⁹, on average; frozen towers included.
    """

    arm: str
    seed: int
    tokens: int
    right: int
    questions: int
    prompt_tokens: float
    gflop: float


def main(words: Sequence[str] | None = None) -> None:
    """Ask, and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--grid", required=True, help="YAML file of the grid")
    parser.add_argument("--output", required=True, help="folder of the grid's runs, which must be finished")
    parser.add_argument("--asked", nargs="+", default=["world", "random_budget"], help="arms that are asked")
    parser.add_argument("--fixed", nargs="+", default=["tokens_16", "tokens_4", "tokens_1"], help="arms of one number")
    parser.add_argument("--answers", help="folder with answers_seed*.csv of the arms of one number; default: output")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the runs; default: the grid's")
    options = parser.parse_args(words)
    grid, output = Grid.read(options.grid), Path(options.output)
    points, first, of_seeds, pictures, best = [], None, {}, {}, []
    for seed in options.seeds or grid.seeds:
        outcomes: dict[str, Outcomes] = {}
        for arm in options.asked:
            for tokens in TOKENS:
                outcomes[f"{arm}@{tokens}"] = asked(output, arm, seed, tokens)
        lines = csv.DictReader((Path(options.answers or output) / f"answers_seed{seed}.csv").open(encoding="utf-8"))
        table = {line["id"]: line for line in lines}
        best += [int(line["best_constant"]) for line in table.values()]
        for arm in options.fixed:
            outcomes[f"{arm}@{arm.removeprefix('tokens_')}"] = {name: int(row[arm]) for name, row in table.items()}
        first = first or costs(output / "runs" / f"{options.asked[0]}-seed{seed}")
        points += [point(name, seed, found, first) for name, found in outcomes.items()]
        of_seeds[seed], pictures[seed] = outcomes, {name: row["picture"] for name, row in table.items()}
        write(output / f"budget_answers_seed{seed}.csv", answers(outcomes))
    write(output / "budgets.csv", text_of(points))
    write(output / "budgets.md", comparisons(of_seeds, pictures, trained=options.asked[-1]))
    (output / "budgets.png").write_bytes(draw(points, best_constant=sum(best) / len(best)))
    print(f"Wrote budgets.csv, budgets.md, budgets.png and budget_answers_seed*.csv to {output}")


def asked(output: Path, arm: str, seed: int, tokens: int) -> Outcomes:
    """What a run's export answers when it is read with so many world tokens a frame."""
    run, folder = output / "runs" / f"{arm}-seed{seed}", output / "asked" / f"{arm}-seed{seed}-{tokens}"
    config = yaml.safe_load((run / "fit.yaml").read_text(encoding="utf-8"))
    made = scenes(config)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        evaluate(
            model=str(run / "export" / list(config["model"]["stages"])[-1]),
            benchmark="osd",
            path=str(made.test_path),
            images=str(made.test_images),
            output=str(folder),
            max_new_tokens=config["model"]["max_new_tokens"],
            region_style=config["data"]["region_style"],
            world_tokens_per_frame=tokens,
        )
    found = outcomes_of(folder / PREDICTIONS)
    if tokens == TOKENS[0] and found != outcomes_of(run / PREDICTIONS):
        raise ValueError(
            f"{folder}: found other outcomes than the run itself wrote with {tokens} world tokens, expected the same; "
            "its export or its scenes are not those of the run"
        )
    return found


def outcomes_of(predictions: Path) -> Outcomes:
    """Of a file of predictions."""
    report = Report.from_predictions(read_predictions(predictions))
    pairs = zip(report.predictions, report.scores, strict=True)
    return {prediction.question.id: int(score.correct) for prediction, score in pairs}


def scenes(config: Values) -> SyntheticPaths:
    """Where the scenes of a run lie."""
    return SyntheticScenes(**config["data"]["synthetic"]).generate(progress=False)


def costs(run: Path) -> dict[int, tuple[float, float]]:
    """World tokens → tokens and 10⁹ operations of a prompt, on average over the run's questions."""
    config = yaml.safe_load((run / "fit.yaml").read_text(encoding="utf-8"))
    export, made = run / "export" / list(config["model"]["stages"])[-1], scenes(config)
    stored, _ = PretrainedConfig.get_config_dict(export)
    model = TheWorldConfig.from_dict(stored)
    processor = TheWorldProcessor.from_pretrained(
        export, num_world_tokens=model.num_world_tokens, world_image_size=model.world_image_size
    )
    rows = OSDRows(made.test_path, image_folder=made.test_images)
    index = build_index(rows, processor, max_seq_length=100_000, name="test")
    store = FolderStore(index, rows_path=made.test_path, image_folder=made.test_images)
    samples = OSDSamples(store, index=index, processor=processor)
    lengths = [len(samples.prompt(number).input_ids) for number in range(len(samples))]
    found = {}
    for tokens in TOKENS:
        config = TheWorldConfig.from_dict(stored | {"world_tokens_per_frame": tokens})
        fewer = model.num_world_tokens - config.num_world_tokens
        work = [useful_flops(config, _prompt(length - fewer), ()).passes.forward for length in lengths]
        found[tokens] = (sum(lengths) / len(lengths) - fewer, sum(work) / len(work) / 1e9)
    return found


def _prompt(length: int) -> Geometry:
    """One prompt whose last position is scored, and whose towers run."""
    return Geometry(document_lengths=(length,), targets=1, images=1, frames=1, live_images=1, live_frames=1)


def point(name: str, seed: int, found: Outcomes, cost: dict[int, tuple[float, float]]) -> Point:
    """`ARM@TOKENS` as a point."""
    arm, tokens = name.split("@")
    return Point(arm, seed, int(tokens), sum(found.values()), len(found), *cost[int(tokens)])


def answers(outcomes: dict[str, Outcomes]) -> str:
    """A line a question."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["id", *outcomes])
    for question in next(iter(outcomes.values())):
        lines.writerow([question, *(of_model[question] for of_model in outcomes.values())])
    return text.getvalue()


def comparisons(of_seeds: dict[int, dict[str, Outcomes]], pictures: dict[int, dict[str, str]], *, trained: str) -> str:
    """A line for each model that was asked at a number, beside the one called `trained` at that number."""
    lines = [
        f"| `{trained}` against | tokens | right answers, % | difference by seed | p, other pictures |",
        "|---|---|---|---|---|",
    ]
    for name in next(iter(of_seeds.values())):
        arm, tokens = name.split("@")
        if arm == trained:
            continue
        ours, theirs, of_picture, differences = [], [], [], []
        for seed, outcomes in of_seeds.items():
            one, other = outcomes[f"{trained}@{tokens}"], outcomes[name]
            ours += [bool(one[question]) for question in one]
            theirs += [bool(other[question]) for question in one]
            of_picture += [f"{seed}/{pictures[seed][question]}" for question in one]
            differences.append(100 * (sum(one.values()) - sum(other.values())) / len(one))
        p_value = paired_test(ours, theirs, of_picture).p_value
        shares = f"{100 * sum(ours) / len(ours):.1f} against {100 * sum(theirs) / len(theirs):.1f}"
        by_seed = ", ".join(f"{difference:+.1f}" for difference in differences)
        lines.append(f"| `{arm}` | {tokens} | {shares} | {by_seed} | {p_value:.2g} |")
    return "\n".join(lines) + "\n"


def text_of(points: Sequence[Point]) -> str:
    """As CSV."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*(field.name for field in fields(Point)), "accuracy"])
    lines.writerows([*astuple(p), f"{p.right / p.questions:.4f}"] for p in points)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())

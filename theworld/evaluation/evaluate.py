"""`theworld evaluate`: a model answers a benchmark; its answers are written, scored and shown."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from theworld import __version__
from theworld.data.features.preprocessing import preprocessing_sha256
from theworld.data.pictures.blank import BlankImage
from theworld.data.pictures.regions import RegionStyle
from theworld.evaluation.answered import answer_sheet, prediction_row, refuse_other_questions
from theworld.evaluation.answering import answer
from theworld.evaluation.benchmarks.benchmark import Benchmark, Excluded, check_items, prompt
from theworld.evaluation.benchmarks.opening import BenchmarkName, open_benchmark
from theworld.evaluation.choice_scoring import choice_report, choice_summary
from theworld.evaluation.loaded_model import LoadedModel, load_model
from theworld.evaluation.prediction_file import Json, PredictionFile, settings_sha256
from theworld.evaluation.predictions import Prediction
from theworld.evaluation.report import Report, write_summary
from theworld.evaluation.seen_images import SeenImages
from theworld.types import FEATURES

WIDTH_OF_A_FILE = 120
"""Columns of the table when the standard output is no terminal."""


def evaluate(
    *,
    model: str,
    benchmark: BenchmarkName,
    path: str,
    output: str,
    images: str | None = None,
    revision: str | None = None,
    subtasks: list[str] | None = None,
    join_images: bool = False,
    model_revision: str | None = None,
    enable_world: bool | None = None,
    cosmos_model: str | None = None,
    text: str | None = None,
    region_style: RegionStyle = "box",
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int = 8,
    max_new_tokens: int = 128,
    limit: int | None = None,
    skip_malformed: bool = False,
    blind: bool = False,
    blank_image: BlankImage | None = None,
    world_tokens_per_frame: int | None = None,
) -> None:
    """Let a model answer a benchmark: write predictions and settings, score them, print the table.

    Writes `predictions.jsonl`, `settings.json`, `summary.json` and `look.png`. An interrupted run goes on where it
    stopped when it is started again in the same way; with other settings, rows or images it is refused.

    Args:
        model: An export (directory or Hub name), a Gemma 3 base (which has no world branch), or `theworld-tiny`.
        benchmark: `srgpt` (SpatialRGPT-Bench), `vsr`, `blink`, `cvbench`, or `osd` (any rows in OSD's schema).
        path: File, folder, or data set on the Hub.
        output: Folder of this model's answers to this benchmark.
        images: Folder of the images, where the rows are JSON.
        revision: Commit of a data set on the Hub; it has to be named.
        subtasks: Of BLINK; by default Relative_Depth, Spatial_Relation and Object_Localization.
        join_images: For BLINK: show several images side by side as one, which Multi-view_Reasoning needs.
        model_revision: Commit of a model on the Hub.
        enable_world: By default as the export was made; false leaves its world branch out.
        cosmos_model: Where the denoiser of a model of several frames is read; default: NVIDIA's repository.
        text: The text embeddings such a model was trained with, if there were any.
        region_style: `box` outlines regions, `mask` tints them; as the model was trained.
        dtype: Of the weights. In float32 answers do not depend on the batch size.
        device: `auto`: a GPU if there is one.
        batch_size: Questions answered at a time.
        max_new_tokens: Longest answer, in tokens.
        limit: Ask the first so many questions only.
        skip_malformed: Leave faulty rows out, count and list them, instead of stopping at the first.
        blind: Show the model the same grey picture, without regions, in place of every image: the baseline that
            `theworld score --blind` puts beside its answers.
        blank_image: Of a control of the audit: the tower that sees plain colours, as the export was trained.
        world_tokens_per_frame: Another number of world tokens a frame than the export has; `settings.json` says which
            numbers it was trained with.
    """
    opened = open_benchmark(
        benchmark,
        path,
        images=images,
        revision=revision,
        subtasks=subtasks,
        join_images=join_images,
        skip_malformed=skip_malformed,
    )
    seen = SeenImages(opened.read_image)
    opened = replace(opened, items=opened.items[:limit], read_image=seen, is_blind=blind)
    loaded = load_model(
        model,
        dtype={"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype],
        device=torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device),
        enable_world=enable_world,
        blank_image=blank_image,
        revision=model_revision,
        cosmos_model=cosmos_model,
        text=text,
        world_tokens_per_frame=world_tokens_per_frame,
    )
    with _progress() as progress:
        opened = _checked(opened, loaded, region_style, progress, skip_malformed=skip_malformed)
        decisive = _decisive(opened, loaded, region_style=region_style, max_new_tokens=max_new_tokens)
        decisive |= {"join_images": join_images, "batch_size": None if dtype == "float32" else batch_size}
        notes = _notes(opened, loaded, path=path, revision=revision, images=images, batch_size=batch_size)
        with PredictionFile(output, decisive=decisive, notes=notes) as file:
            seen.refuse_others(file.rows, file.path)
            refuse_other_questions(opened, file.rows, file.path)
            _answer_rest(
                opened,
                loaded,
                file,
                progress,
                seen,
                region_style=region_style,
                batch_size=batch_size,
                tokens=max_new_tokens,
            )
            texts = {item.row.id: str(file.rows[item.row.id]["prediction"]) for item in opened.items}
    table, summary = score(opened, texts)
    Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE).print(table)
    _write(Path(output), summary | {"settings_sha256": settings_sha256(decisive)}, opened, texts, region_style)
    if opened.excluded:
        print(f"{len(opened.excluded)} faulty rows were left out; {Path(output) / 'settings.json'} lists them")


def score(benchmark: Benchmark, texts: dict[str, str]) -> tuple[Table, dict[str, Json]]:
    """The table and summary of answers to a benchmark.

    Args:
        benchmark: That was asked.
        texts: What the model answered, by the id of the question.

    Raises:
        ValueError: A ground truth cannot be read.
    """
    predictions = [
        Prediction(
            # Under the name that the image has in the file, so that the file scores to the same summary.
            question=replace(item.question, image_id=item.image),
            text=texts[item.row.id],
            benchmark=benchmark.name,
            choices=item.choices,
            group=item.group,
        )
        for item in benchmark.items
    ]
    if benchmark.scoring == "spatial":
        spatial = Report.from_predictions(predictions)
        return spatial.table(), {"benchmark": benchmark.name, "report": spatial.summary()}
    report = choice_report(benchmark.name, predictions)
    return report.table(), choice_summary(report)


def _answer_rest(
    benchmark: Benchmark,
    loaded: LoadedModel,
    file: PredictionFile,
    progress: Progress,
    seen: SeenImages,
    *,
    region_style: RegionStyle,
    batch_size: int,
    tokens: int,
) -> None:
    """Answer what is not in the file yet, in the benchmark's order, and write it batch by batch."""
    rest = [item for item in benchmark.items if item.row.id not in file.rows]
    task = progress.add_task(
        f"answering {benchmark.name}", total=len(benchmark.items), completed=len(benchmark.items) - len(rest)
    )
    samples = (prompt(benchmark, item, loaded.processor, region_style=region_style) for item in rest)
    answers = answer(loaded.model, loaded.processor, samples, batch_size=batch_size, max_new_tokens=tokens)
    waiting: list[dict[str, Json]] = []
    # TensorFloat-32, which convolutions use unless told otherwise, has bfloat16's few digits.
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        for number, (item, answered) in enumerate(zip(rest, answers, strict=True), start=1):
            waiting.append(prediction_row(benchmark, item, answered, seen.sha256[item.row.id]))
            if number % batch_size == 0 or number == len(rest):
                file.append(waiting)
                waiting = []
            progress.advance(task)


def _checked(
    benchmark: Benchmark, loaded: LoadedModel, region_style: RegionStyle, progress: Progress, *, skip_malformed: bool
) -> Benchmark:
    """The benchmark without the questions that cannot be asked, if leaving them out is allowed."""
    task = progress.add_task(f"checking {benchmark.name}", total=len(benchmark.items))
    faults = check_items(
        benchmark, loaded.processor, region_style=region_style, on_checked=lambda: progress.advance(task)
    )
    if not faults:
        return benchmark
    if not skip_malformed or len(faults) == len(benchmark.items):
        first, asked = next(iter(faults.values())), len(benchmark.items)
        raise ValueError(f"{len(faults)} of {asked} questions cannot be asked; the first: {first}")
    excluded = [Excluded(number=i.number, reason=faults[i.row.id]) for i in benchmark.items if i.row.id in faults]
    return replace(
        benchmark,
        items=tuple(item for item in benchmark.items if item.row.id not in faults),
        excluded=(*benchmark.excluded, *excluded),
    )


def _decisive(
    benchmark: Benchmark, loaded: LoadedModel, *, region_style: RegionStyle, max_new_tokens: int
) -> dict[str, Json]:
    """Everything an answer depends on, so that two runs with the same are runs of the same experiment."""
    processor = loaded.processor
    features = [name for name in FEATURES if processor.enable_world or name == "image_features"]
    return {
        "benchmark": benchmark.name,
        "sources": dict(benchmark.sources),
        "blind": benchmark.is_blind,
        "model_sha256": dict(loaded.identity),
        "enable_world": processor.enable_world,
        "num_world_tokens": processor.num_world_tokens,
        "region_style": region_style,
        "preprocessing_sha256": {
            name: preprocessing_sha256(processor, name, region_style=region_style) for name in features
        },
        "decoding": {"method": "greedy", "max_new_tokens": max_new_tokens},
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "device": loaded.model.device.type,
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }


def _notes(
    benchmark: Benchmark,
    loaded: LoadedModel,
    *,
    path: str,
    revision: str | None,
    images: str | None,
    batch_size: int,
) -> dict[str, Json]:
    device, config = loaded.model.device, loaded.model.config
    return {
        "model": loaded.name,
        "world_tokens_per_frame_trained_with": config.budgets_trained_with if config.enable_world else None,
        "path": path,
        "revision": revision,
        "images": images,
        "batch_size": batch_size,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "theworld": __version__,
        "excluded": [{"row": fault.number, "reason": fault.reason} for fault in benchmark.excluded],
    }


def _write(
    folder: Path, summary: dict[str, Json], benchmark: Benchmark, texts: dict[str, str], region_style: RegionStyle
) -> None:
    write_summary(folder / "summary.json", summary)
    answer_sheet(benchmark, benchmark.items, texts, region_style=region_style).save(folder / "look.png")
    print(f"Wrote predictions.jsonl, settings.json, summary.json and look.png to {folder}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )

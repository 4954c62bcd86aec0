"""`theworld plan`: memory and time of a run, before it runs and on any machine.

    theworld plan --config configs/stage1.yaml --card h100
    theworld plan --config configs/stage1.yaml --memory_gb 24 --output plan.json
    theworld plan --config configs/stage1.yaml --memory_gb '[16, 24, 40, 80]'

Takes the flags of `theworld fit`. Loads no weights and reads no rows: it makes the training step on tensors without
content (`theworld.profiling.plan`). With one size of memory the exit status is 1 if the run as configured does not fit.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from theworld.data.datamodule import OSDDataModule
from theworld.profiling.plan.choices import Choices, Strategy
from theworld.profiling.plan.data_rows import SamplesOf, indexed_rows, typical_rows
from theworld.profiling.plan.display import show
from theworld.profiling.plan.named_cards import find_card
from theworld.profiling.plan.prediction import Planner, Run, StageMemory, stage_work
from theworld.profiling.plan.report import RunReport, StageReport, as_data, described, refusal
from theworld.profiling.plan.search import Search
from theworld.profiling.plan.shape import shape_of
from theworld.profiling.plan.typical_row import CachedTowers
from theworld.profiling.plan.weightless import parameter_counts
from theworld.training.cards import Card
from theworld.training.module import TheWorldModule
from theworld.training.stages import Stage


class PlanOnly:
    """Beside a command line of `fit`: its settings with those of the plan, its model and data, and no trainer."""

    config: Namespace
    model: TheWorldModule
    datamodule: OSDDataModule

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Those of `fit`, and of the plan."""
        super().add_arguments_to_parser(parser)  # type: ignore[misc]
        parser.add_argument("--card", type=str | None, default=None, help="The card, such as h100 or rtx4090.")
        parser.add_argument(
            "--memory_gb",
            type=float | list[float] | None,
            default=None,
            help="Memory of the card in 10^9 bytes, or of several; by default the card's.",
        )
        parser.add_argument("--output", type=str | None, default=None, help="JSON file for everything that was found.")

    def instantiate_trainer(self, **_: object) -> None:
        """None: it would look for the GPU that the run is for."""


def plan_command(words: Sequence[str], command_line: type, **settings: Any) -> None:
    """Run `theworld plan`.

    Args:
        words: Its arguments.
        command_line: That of `fit`, a LightningCLI.
        settings: Those of LightningCLI.
    """
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")  # the words come from there
    kind = type("PlanCLI", (PlanOnly, command_line), {})
    try:
        cli = kind(TheWorldModule, OSDDataModule, run=False, args=list(words), **settings)
        if cli.config.output is not None:
            Path(cli.config.output).parent.mkdir(parents=True, exist_ok=True)  # now: a plan takes minutes
        report, refused = plan_run(cli.model, cli.datamodule, cli.config, Console(stderr=True))
    except (ValueError, OSError) as error:
        sys.exit(f"theworld plan: {error}")
    show(report, Console())
    if cli.config.output is not None:
        Path(cli.config.output).write_text(json.dumps(as_data(report), indent=1) + "\n")
    if refused:
        sys.exit("\n".join(f"theworld plan: {line}" for line in refused))


def plan_run(
    module: TheWorldModule, data: OSDDataModule, config: Namespace, progress: Console
) -> tuple[RunReport, list[str]]:
    """The plan of every stage, and why the run does not fit the one card that was named.

    Raises:
        ValueError: A sample that no row can hold, or a setting that cannot be planned.
    """
    card, sizes = _card(config)
    run, shape, rows = run_of(module, data, config)
    planner, counts = Planner(), parameter_counts(run.config)
    reports, refused = [], []
    for name, stage in zip(module.schedule.names, module.schedule.stages, strict=True):
        configured = _configured(config, module, stage, data.token_budget)
        search = Search(planner, run, name, configured, max_seq_length=data.max_seq_length)
        fits = tuple(
            search.find(size, progress=lambda found: progress.print(_line(found), style="dim")) for size in sizes
        )
        memory = planner.memory(run, name, configured)
        if len(sizes) == 1 and fits[0].best is not memory:
            refused.append(refusal(memory, name, fits[0]))
        trained = {group: counts[group] for group in stage.learning_rates.trained()}
        work = stage_work(run, stage, configured, card)
        parameters = {"all": counts, "trained": trained}
        reports.append(StageReport(name=name, memory=memory, work=work, parameters=parameters, fits=fits))
    return RunReport(
        shape=shape,
        rows=rows,
        samples=run.samples_of(data.token_budget),
        world_tokens=run.config.num_world_tokens if run.config.enable_world else 0,
        card=None if card is None else card.name,
        stages=tuple(reports),
        notes=_notes(module, config),
    ), refused


def run_of(module: TheWorldModule, data: OSDDataModule, config: Namespace) -> tuple[Run, str, str]:
    """What is planned, and where its shape and its rows come from."""
    if module.attention_backend == "flex":
        raise ValueError(
            "found model.attention_backend=flex, expected flash, flash4 or sdpa: flex attention's masks are made by "
            "a compiled function of their values, which a plan does not have; plan with flash"
        )
    shape_config, shape = shape_of(module)
    samples_of, rows = _rows(data, config, shape_config)
    trainer = config.trainer
    cached = config.data.train_features is not None
    run = Run(
        module=module,
        config=shape_config,
        samples_of=samples_of,
        cached=CachedTowers(cached, cached),
        precision=trainer.precision or "32-true",
        micro_batches=data.micro_batches_per_step,
        clip=trainer.gradient_clip_val,
        shard_frozen=bool(_strategy_argument(trainer.strategy, "shard_frozen")),
    )
    return run, shape, rows


def _rows(data: OSDDataModule, config: Namespace, shape: Any) -> tuple[SamplesOf, str]:
    given = config.data
    sources = [given.train_index and Path(given.train_index), given.train_shards and _beside(given.train_shards)]
    sources += [source.index and Path(source.index) for source in given.sources or []]
    indices = [path.expanduser() for path in sources if path and path.expanduser().is_file()]
    if indices:
        return indexed_rows(indices, max_images=data.max_images_per_row, seed=data.seed, token_budget=data.token_budget)
    return typical_rows(shape, max_seq_length=data.max_seq_length, token_budget=data.token_budget)


def _beside(shards: str) -> Path:
    return Path(shards) / "index.parquet"


def _card(config: Namespace) -> tuple[Card | None, list[float]]:
    card, size = find_card(config.card) if config.card else (None, None)
    asked = config.memory_gb if config.memory_gb is not None else size
    if asked is None:
        return card, []
    sizes = asked if isinstance(asked, list) else [asked]
    if not sizes or min(sizes) <= 0:
        raise ValueError(f"found --memory_gb={asked}, expected one or more sizes above 0, in 10^9 bytes")
    return card, sizes


def _gpus(config: Namespace) -> int:
    """GPUs of the run; where it takes all that are there, one. On a command line `devices` is text."""
    devices = config.trainer.devices
    if isinstance(devices, str):
        listed = "," in devices  # "1," is the one GPU of that number, "1" is one GPU
        numbers = [int(number) for number in devices.split(",") if number.strip()] if devices != "auto" else []
        devices = numbers if listed or not numbers else numbers[0]
    count = len(devices) if isinstance(devices, list) else devices
    return max(1, count) * config.trainer.num_nodes


def _configured(config: Namespace, module: TheWorldModule, stage: Stage, token_budget: int) -> Choices:
    trainer = config.trainer
    gpus = _gpus(config)
    named = trainer.strategy if isinstance(trainer.strategy, str) else trainer.strategy.class_path
    strategy: Strategy = "one device" if gpus == 1 else "ddp"
    if "FullySharded" in named:
        strategy = "fsdp2"
    return Choices(
        token_budget=token_budget,
        recompute=stage.recompute,
        optimizer=module.optimizer_choice,
        low_bit_base=module.low_bit_base,
        strategy=strategy,
        gpus=gpus,
    )


def _strategy_argument(strategy: str | Namespace, name: str) -> object:
    arguments = None if isinstance(strategy, str) else strategy.get("init_args")
    return None if arguments is None else arguments.get(name)


def _line(memory: StageMemory) -> str:
    return f"looked at {described(memory.choices)}: needs {memory.needed_bytes / 1e9:.1f} GB"


def _notes(module: TheWorldModule, config: Namespace) -> tuple[str, ...]:
    notes = ["Training steps alone are planned: validation, answers while training and exports need less or are brief."]
    if not module.compile_layers:
        notes.append("compile_layers is off: layers are counted as they are written, with every intermediate result.")
    if config.trainer.devices in ("auto", -1, "-1"):
        notes.append("trainer.devices takes all GPUs that are there; one is planned (--trainer.devices=N for others).")
    if config.trainer.accelerator == "cpu":
        notes.append("The run is for a CPU; the numbers are those of the same run on a GPU.")
    return tuple(notes)

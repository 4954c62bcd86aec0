"""The `theworld` command: `fit`, `validate`, `test`, `predict`, `replay`, `plan`, `profile`, and the tools.

    theworld fit --config configs/tiny.yaml --model.stages.projection.max_steps=10
    theworld replay outputs/tiny/nonfinite/step=12 --config configs/tiny.yaml

`replay` makes a step again that was not finite; `plan` and `profile` are in `theworld.planning_cli` and
`theworld.profiling_cli`, the tools in `theworld.data_cli`.

Every setting is a constructor argument; `theworld fit --help` lists them and `--print_config` shows the result of files
and flags together. Each standing callback has a key of its own, so that a later file or flag changes it in place.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import set_parsing_settings
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichModelSummary
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from transformers.utils.logging import disable_progress_bar

from theworld.data.datamodule import OSDDataModule
from theworld.data_cli import TOOLS, data_tool
from theworld.evaluation_cli import COMMANDS, evaluation_command
from theworld.profiling_cli import ProfiledRun, profile_command
from theworld.training.callbacks.answer_file import AnswerFile
from theworld.training.callbacks.answer_table import AnswerTable
from theworld.training.callbacks.cached_features import CachedFeatures
from theworld.training.callbacks.drift import DriftRefusal
from theworld.training.callbacks.failure_event import FailureEvent
from theworld.training.callbacks.fixed_prompts import FixedPrompts
from theworld.training.callbacks.learning_rate_sweep import LearningRateSweep
from theworld.training.callbacks.nonfinite import NonFiniteGuard
from theworld.training.callbacks.preemption import Preemption
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_export import StageExport
from theworld.training.callbacks.stage_plateau import StagePlateau
from theworld.training.callbacks.stage_progress import StageProgressBar
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.callbacks.stage_validation import StageValidation
from theworld.training.callbacks.throughput import Throughput
from theworld.training.callbacks.validation_answers import ValidationAnswers
from theworld.training.callbacks.watchdog import Watchdog
from theworld.training.callbacks.world_source import WorldSourceOfRun
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories
from theworld.training.module import TheWorldModule
from theworld.training.nonfinite.replay import Replay, report
from theworld.world_tokens import num_world_tokens, random_num_world_tokens

CONFIGURABLE = ["lightning.pytorch", "torch.optim", "theworld"]
"""Packages whose classes a config may name. Any other `class_path` is refused before it is imported."""

CALLBACKS = {
    "failure_event": FailureEvent,
    "watchdog": Watchdog,
    "drift": DriftRefusal,
    "quarantine": Quarantine,
    "nonfinite": NonFiniteGuard,
    "cached_features": CachedFeatures,
    "world_source": WorldSourceOfRun,
    "stage_plateau": StagePlateau,
    "stage_schedule": StageSchedule,
    "learning_rate_sweep": LearningRateSweep,
    "throughput": Throughput,
    "stage_validation": StageValidation,
    "validation_answers": ValidationAnswers,
    "fixed_prompts": FixedPrompts,
    "stage_export": StageExport,
    "preemption": Preemption,
    "answer_table": AnswerTable,
    "answer_file": AnswerFile,
    "checkpoint": CrashSafeCheckpoint,
    "progress_bar": StageProgressBar,
    "model_summary": RichModelSummary,
}
"""Standing callbacks by config key, in the order they run in: throughput is read before a stage's end is handled."""

SWITCHES = {"enable_checkpointing": "checkpoint", "enable_progress_bar": "progress_bar"}
SWITCHES["enable_model_summary"] = "model_summary"
"""Trainer switch → the callback that goes when it is off."""


class TheWorldCLI(LightningCLI):
    """LightningCLI with our model, data and standing callbacks."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Give every standing callback a key, and state once what model and data share."""
        for key, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)
        parser.set_defaults(
            {
                "checkpoint.every_n_train_steps": 500,
                "checkpoint.save_last": "link",
                "progress_bar.refresh_rate": 1,
                "model_summary.max_depth": 3,
            }
        )
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="After fitting, answer the test questions and score them.",
        )
        parser.add_argument(
            "--allow_drift",
            action="store_true",
            help="Resume though settings, tokenizer or code differ from those that the checkpoint was written with.",
        )
        parser.link_arguments("allow_drift", "drift.allow")
        parser.link_arguments("trainer.default_root_dir", "checkpoint.dirpath", compute_fn=checkpoint_directory)
        for name in ("base", "enable_world", "world_image_size"):
            parser.link_arguments(f"model.{name}", f"data.{name}")
        parser.link_arguments(
            (
                "model.world_image_size",
                "model.world_projection_mode",
                "model.num_world_steps",
                "model.world_tokens_per_frame",
                "model.world_latent_shape",
            ),
            "data.num_world_tokens",
            compute_fn=num_world_tokens,
        )
        parser.link_arguments(
            (
                "model.enable_world",
                "model.world_image_size",
                "model.world_projection_mode",
                "model.num_world_steps",
                "model.world_tokens_per_frame",
                "model.world_latent_shape",
                "model.random_world_tokens_per_frame",
            ),
            "data.random_num_world_tokens",
            compute_fn=random_num_world_tokens,
        )

    def instantiate_trainer(self, **kwargs: object) -> object:
        """Leave out the callbacks that a trainer switch turns off, Lightning would refuse them; add our checkpoints."""
        trainer, parser = self._get(self.config_init, "trainer"), self._parser(self.subcommand)
        off = {key for switch, key in SWITCHES.items() if trainer.get(switch) is False}
        parser.callback_keys = [key for key in parser.callback_keys if key not in off]
        plugins = trainer.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        return super().instantiate_trainer(**kwargs, plugins=[*plugins, CheckpointDirectories()])

    def after_fit(self) -> None:
        """Test the weights that training ended with, if asked to."""
        if self.config[self.subcommand].test_after_fit:
            self.trainer.test(self.model, datamodule=self.datamodule)


class ReplayCLI(TheWorldCLI):
    """Model and data of a run, on one device, with a trainer that makes one step and writes nothing.

    Args:
        folder: The step's own.
        kwargs: Those of LightningCLI.
    """

    def __init__(self, folder: Path, **kwargs: object) -> None:
        self.replay = Replay(folder)
        super().__init__(TheWorldModule, OSDDataModule, run=False, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Those of `fit` as well, which stand in the settings that a run writes down."""
        super().add_arguments_to_parser(parser)
        parser.add_method_arguments(Trainer, "fit", skip=self.subcommands()["fit"])

    def before_instantiate_classes(self) -> None:
        """Lay the run out for one device, with the same micro-batches in the step."""
        devices = {"devices": 1, "num_nodes": 1, "strategy": "auto", "max_steps": self.replay.step + 1}
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "callbacks": None}
        batches = {"accumulate_grad_batches": self.config.data.micro_batches_per_step, "limit_val_batches": 0}
        for name, value in (devices | quiet | batches | {"enable_model_summary": False}).items():
            self.config.trainer[name] = value

    def instantiate_trainer(self, **kwargs: object) -> object:
        """Only what decides what a step is."""
        self.parser.callback_keys = ["quarantine", "cached_features", "stage_schedule"]
        self.trainer_defaults["callbacks"] = [self.replay]
        return super().instantiate_trainer(**kwargs)


class ProfileCLI(ProfiledRun, TheWorldCLI):
    """A run that is profiled: with our model, data and standing callbacks."""


def replay_step(words: Sequence[str], **kwargs: object) -> None:
    """Run `theworld replay`: print what was found, and exit with 1 if the step is finite this time."""
    if not words or words[0].startswith("-"):
        sys.exit("theworld replay: found no folder, expected `theworld replay RUN/nonfinite/step=N --config FILE`")
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")  # the words come from there
    try:
        cli = ReplayCLI(Path(words[0]), args=list(words[1:]), **kwargs)
        replay = cli.replay
        checkpoint = None if replay.dumps[0].has_weights else replay.dumps[0].checkpoint
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    except ValueError as error:
        sys.exit(f"theworld replay: {error}")
    print(report(replay))
    sys.exit(0 if replay.findings.is_reproduced else 1)


def checkpoint_directory(default_root_dir: str | os.PathLike[str] | None) -> str:
    """Checkpoints of all runs with one root lie together, so that `--ckpt_path=last` finds the newest."""
    return str(Path(default_root_dir or ".") / "checkpoints")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line `args`, by default the process's own."""
    # Lightning 2.6 calls what jsonargparse 5 will remove; we require a version below 5, so users need no warning.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    set_parsing_settings(
        config_read_mode_urls_enabled=False,
        config_read_mode_fsspec_enabled=False,
        import_path_denylist=["*"],
        import_path_allowlist=CONFIGURABLE,
    )
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")  # Lightning 2.6 with torch 2.13
    # Which rows a batch needs is for the model to say; the data module has no part in it.
    warnings.filterwarnings("ignore", message="You have overridden `on_before_batch_transfer`")
    disable_progress_bar()  # transformers' bars for reading and writing weights would tear ours
    words = list(sys.argv[1:] if args is None else args)
    if words[:1] == ["data"]:
        data_tool(words[1:])
        return
    if words[:1] and words[0] in COMMANDS:
        evaluation_command(words)
        return
    settings = {
        "trainer_defaults": {"max_epochs": -1, "num_sanity_val_steps": 0, "log_every_n_steps": 10},
        "seed_everything_default": 0,
        "save_config_kwargs": {"overwrite": True},
        "auto_configure_optimizers": False,
    }
    if words[:1] == ["replay"]:
        replay_step(words[1:], **settings)
    if words[:1] == ["profile"]:
        profile_command(words[1:], ProfileCLI, **settings)
        return
    if words[:1] == ["plan"]:
        from theworld.planning_cli import plan_command  # here: it loads the compiler, which no other command needs yet

        plan_command(words[1:], TheWorldCLI, **settings)
        return
    tools = f"{', '.join(COMMANDS)}, replay, plan, profile, profile compare, data {', '.join(TOOLS)}"
    description = f"Train and test TheWorld. Tools: theworld {tools}."
    settings["parser_kwargs"] = {"prog": "theworld", "description": description}
    TheWorldCLI(TheWorldModule, OSDDataModule, **settings, args=None if args is None else words)


if __name__ == "__main__":
    main()

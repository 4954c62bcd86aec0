"""`theworld profile`: where the memory and the time of a training step go; and reports side by side.

theworld profile --config configs/profile/tiny.yaml
theworld profile compare outputs/profile/gemma outputs/profile/theworld_projection --output outputs/compared
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from theworld.data.datamodule import OSDDataModule
from theworld.profiling.callback import Profile
from theworld.profiling.reports.compare import compare
from theworld.profiling.watch import Plan
from theworld.training.module import TheWorldModule

LEFT_OUT = (
    *("checkpoint", "stage_export", "stage_plateau", "stage_validation", "validation_answers", "fixed_prompts"),
    *("answer_table", "answer_file", "learning_rate_sweep", "preemption", "model_summary"),
)
"""Standing callbacks of `fit` that write, evaluate or end a run, and so are not part of a usual step."""


class ProfiledRun(LightningCLI):
    """What `profile` changes of the command line of `fit`; stands before it in the order of bases."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(TheWorldModule, OSDDataModule, run=False, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Those of `fit`, so that its files serve here as well, and the profile's."""
        super().add_arguments_to_parser(parser)
        parser.add_lightning_class_args(Profile, "profile")
        parser.add_method_arguments(Trainer, "fit", skip=self.subcommands()["fit"])

    def before_instantiate_classes(self) -> None:
        """End with the last measured step, and write nothing but the report."""
        profile = self.config.profile
        counts = {name: profile[name] for name in ("warmup_steps", "active_steps", "traced_steps")}
        self.config.trainer.max_steps = Plan(**counts).total
        self.config.trainer.default_root_dir = profile.output
        self.config.trainer.limit_val_batches = 0
        for name in ("enable_checkpointing", "enable_model_summary"):
            self.config.trainer[name] = False

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
        """The profile first, so that a step holds the other callbacks."""
        kept = [key for key in self.parser.callback_keys if key not in (*LEFT_OUT, "profile")]
        self.parser.callback_keys = ["profile", *kept]
        return super().instantiate_trainer(**kwargs)


def profile_command(words: Sequence[str], make: Callable[..., LightningCLI], **settings: object) -> None:
    """Run `theworld profile` with these arguments.

    Args:
        words: Behind `profile`.
        make: The command line with our model, data and callbacks, as a `ProfiledRun`.
        settings: Of that command line.
    """
    if words[:1] == ["compare"]:
        _compare(words[1:])
        return
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")  # the words come from there
    warnings.filterwarnings("ignore", message="Stopped at optimizer step")  # as planned
    cli = make(args=list(words), **settings)
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    except ValueError as error:
        sys.exit(f"theworld profile: {error}")


def _compare(words: Sequence[str]) -> None:
    parser = ArgumentParser(prog="theworld profile compare", description="Reports of profiles side by side.")
    parser.add_argument("reports", nargs="+", type=Path, help="folders of profiles; the first is compared with")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    arguments = parser.parse_args(list(words))
    try:
        print(compare(arguments.reports, output=arguments.output))
    except (ValueError, OSError) as error:
        sys.exit(f"theworld profile compare: {error}")

"""Walks a run through its stages: what trains, what is computed twice, and when the run ends."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.table import Table
from torch.nn.parallel import DistributedDataParallel

from theworld.models.execution import set_execution
from theworld.models.parameter_groups import parameter_groups
from theworld.training.callbacks.rendering import rendered
from theworld.training.callbacks.stage_plateau import StagePlateau, limit_steps
from theworld.training.events import record
from theworld.training.module import TheWorldModule
from theworld.training.optimizer_rules import set_trainable, trainable_counts
from theworld.types import Batch


class StageSchedule(Callback):
    """Applies the stage of the current optimizer step, at the start of the run and at every boundary.

    Which parameters train is a function of the step alone, so a resumed run is in the right stage without any state of
    this callback. The run ends with the last stage, or at `trainer.max_steps` when that comes first. Prints the stages
    once and one line at each boundary.
    """

    def setup(self, trainer: Trainer, pl_module: TheWorldModule, stage: str) -> None:
        """End the run after the last stage.

        A step limit, unlike `trainer.should_stop`, waits for no minimum of epochs and starts no extra validation; with
        it Lightning also restores the loader's position when a checkpoint was written between two epochs.
        """
        if stage != "fit":
            return
        early = [
            n for n, s in zip(pl_module.schedule.names, pl_module.schedule.stages, strict=True) if s.advance_on_plateau
        ]
        if early and not any(isinstance(callback, StagePlateau) for callback in trainer.callbacks):
            raise ValueError(
                f"found stages that may end early ({', '.join(early)}) and nothing that ends them; add "
                "theworld.training.callbacks.stage_plateau.StagePlateau to trainer.callbacks"
            )
        if any(isinstance(callback, LearningRateFinder) for callback in trainer.callbacks):
            raise ValueError(
                "found Lightning's LearningRateFinder, expected none: the stages set the rates in every step, so it "
                "would change nothing; use --learning_rate_sweep.enabled=true"
            )
        limit_steps(trainer, pl_module.schedule)

    def on_fit_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Refuse a strategy that would wait for the gradients of frozen parameters."""
        limit_steps(trainer, pl_module.schedule)  # a checkpoint may have said that a stage ended early
        model = trainer.model
        several = len(pl_module.schedule.stages) > 1
        if several and isinstance(model, DistributedDataParallel) and not model.find_unused_parameters:
            raise ValueError(
                f"found {len(pl_module.schedule.stages)} stages under DDP without find_unused_parameters, expected it: "
                "what is frozen in one stage would be waited for. Set trainer.strategy to "
                "ddp_find_unused_parameters_true, or run the stages one by one (configs/stage1.yaml and on)"
            )

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Apply the stage of the step the run starts or resumes at, and show all stages."""
        self._apply(pl_module, trainer.global_step)
        pl_module.print(rendered(stage_table(pl_module, trainer.global_step)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TheWorldModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Move on after the last optimizer step of a stage."""
        step = trainer.global_step
        finished = pl_module.finished_stage(batch_idx)
        if finished is not None and trainer.is_global_zero:
            record(trainer.default_root_dir, "stage_finished", step=step, stage=finished)
        if finished is None or step >= pl_module.schedule.total_steps:
            return
        self._apply(pl_module, step)
        counts = {group: count for group, count in trainable_counts(pl_module.world).items() if count}
        training = ", ".join(f"{group} ({count:,})" for group, count in counts.items())
        pl_module.print(f"Step {step}: {finished} is complete, {pl_module.schedule.name(step)} trains {training}")

    def on_train_end(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Say so when the run ended before its stages did."""
        step, total = trainer.global_step, pl_module.schedule.total_steps
        if step < total:
            rank_zero_warn(f"Stopped at optimizer step {step} of {total}, in stage {pl_module.schedule.name(step)!r}")

    def _apply(self, pl_module: TheWorldModule, step: int) -> None:
        stage = pl_module.schedule.stage(step)
        set_trainable(pl_module.world, stage.learning_rates.trained())
        set_execution(pl_module.world, compiled=pl_module.compile_layers, recompute=stage.recompute)


def stage_table(pl_module: TheWorldModule, step: int) -> Table:
    """One line a stage: its steps, and for each group how many parameters train at which peak rate."""
    schedule = pl_module.schedule
    known = parameter_groups(pl_module.world)
    table = Table(
        title=f"Stages, at optimizer step {step} of {schedule.total_steps}",
        caption="peak learning rate of each group, under the number of its parameters",
    )
    for column in ("stage", "steps", "warmup"):
        table.add_column(column)
    for group in known:
        heading = group.replace("_", "_\n")  # narrow enough for a terminal of 80 columns
        table.add_column(f"{heading}\n{sum(p.numel() for _, p in known[group]):,}", justify="right")
    for number, (name, stage) in enumerate(zip(schedule.names, schedule.stages, strict=True)):
        end = schedule.boundaries[number]
        rates = stage.learning_rates.trained()
        current = number == schedule.stage_index(step)
        table.add_row(
            f"> {name}" if current else name,
            f"{schedule.begins[number]} to {end}",
            f"{stage.warmup_steps}{' (cut short)' if stage.warmup_steps > stage.max_steps else ''}",
            *(f"{rates[group]:g}" if group in rates else "frozen" for group in known),
            style="bold" if current else None,
        )
    return table

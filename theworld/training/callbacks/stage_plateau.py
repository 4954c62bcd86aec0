"""Ends a stage whose validation loss has stopped falling, before its steps are used up."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from theworld.training.callbacks.stage_validation import validation_loss
from theworld.training.events import record
from theworld.training.module import TheWorldModule
from theworld.training.stages import Schedule
from theworld.types import Batch


class StagePlateau(Callback):
    """Measures the validation loss within stages that have `advance_on_plateau`, and ends them when it says so.

    Logs `stage/<name>/plateau_val_loss`, in nats a target token; measuring counts as training time in the throughput.
    It measures by itself, in the hook that saves a checkpoint and before that: Lightning validates after a checkpoint
    is saved and does not do so again in a run that goes on from it, which would then end the stage at another step.

    The stage ends with the step that was measured, on all ranks, and everything that follows from the stages follows:
    learning rates, exports, the end of the run. Must come before `StageSchedule`. The checkpoint says what ended when.

    Attributes:
        losses: What was measured: stage → losses, oldest first. Part of the checkpoint.
    """

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Refuse what an earlier end would make wrong, and what cannot be measured."""
        if not any(stage.advance_on_plateau for stage in pl_module.schedule.stages):
            return
        if not len(trainer.datamodule.val_dataloader()):
            raise ValueError("found advance_on_plateau without validation rows, expected some; give data.val_path")
        if getattr(trainer.datamodule, "features", []):
            raise ValueError(
                "found advance_on_plateau and cached features, expected one of the two: which steps may read features "
                "is planned from the lengths of the stages; leave out data.train_features or advance_on_plateau"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TheWorldModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Measure when it is time, and end the stage if that was the last straw."""
        if not pl_module.steps_after(batch_idx):
            return
        step, schedule = trainer.global_step, pl_module.schedule
        index = schedule.stage_index(step - 1)
        name, plateau, end = (
            schedule.names[index],
            schedule.stages[index].advance_on_plateau,
            schedule.boundaries[index],
        )
        if plateau is None or step >= end or (step - schedule.begins[index]) % plateau.every_n_steps:
            return
        losses = self.losses.setdefault(name, [])
        losses.append(validation_loss(trainer, pl_module))
        for logger in trainer.loggers:
            logger.log_metrics({f"stage/{name}/plateau_val_loss": losses[-1]}, step=step)
        if trainer.strategy.broadcast(plateau.is_reached(losses)):
            pl_module.schedule = schedule.ending_at(step)
            if trainer.is_global_zero:
                record(trainer.default_root_dir, "stage_ended_early", step=step, stage=name, losses=losses)
            limit_steps(trainer, pl_module.schedule)
            pl_module.print(
                f"Step {step}: {name} ends {end - step} steps early; in {plateau.patience} measurements its validation "
                f"loss has not improved by more than {plateau.min_delta:g}: {losses[-1]:.4f}, lowest {min(losses):.4f}"
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: TheWorldModule, checkpoint: dict[str, object]) -> None:
        """Which stages ended early, and after how many steps of theirs."""
        checkpoint["ended_stages"] = dict(pl_module.schedule.ended)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: TheWorldModule, checkpoint: dict[str, object]) -> None:
        """Go on with the schedule as it was."""
        ended = checkpoint.get("ended_stages", {})
        assert isinstance(ended, dict)
        pl_module.schedule = pl_module.schedule.with_ended(ended)

    def state_dict(self) -> dict[str, dict[str, list[float]]]:
        """The losses measured so far."""
        return {"losses": self.losses}

    def load_state_dict(self, state_dict: dict[str, dict[str, list[float]]]) -> None:
        """Take over the losses measured before a resume."""
        self.losses = {name: list(losses) for name, losses in state_dict["losses"].items()}


def limit_steps(trainer: Trainer, schedule: Schedule) -> None:
    """Let the run end with the last stage, or at `trainer.max_steps` when that comes first."""
    limit = trainer.max_steps if trainer.max_steps >= 0 else schedule.total_steps
    trainer.fit_loop.epoch_loop.max_steps = min(limit, schedule.total_steps)

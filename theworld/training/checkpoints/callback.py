"""The callback that says when to save, which checkpoints stay, and which one is the last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, distributed

from theworld.training.checkpoints.background import BackgroundSaves
from theworld.training.checkpoints.directory import sweep, verify_checkpoint
from theworld.training.checkpoints.lock import lock_directory
from theworld.training.checkpoints.newest import link_checkpoint, name_latest, newest_checkpoint
from theworld.training.events import record


class CrashSafeCheckpoint(ModelCheckpoint):
    """Lightning's rules for when to save, over directories that only one run writes.

    Beyond those rules: the newest `keep_newest` checkpoints of a run stay, so that there is one to go back to when
    the last is damaged; LATEST names the last; `ckpt_path="last"` is the newest that verifies, and every one that was
    skipped is printed with the reason. Needs the plugin `CheckpointDirectories`.

    With `async_save` training goes on while a checkpoint is written. It waits only for the copy into the host's memory,
    which must hold what a checkpoint holds, and for a save that is still under way when the next one is due. LATEST and
    the link name a checkpoint, and older ones go, when it is complete. A save that fails ends the run at the next step.

    Args:
        dirpath: The local folder in which checkpoints lie.
        keep_newest: How many of the newest checkpoints stay even if `save_top_k` would let them go.
        async_save: Write in the background.
        kwargs: Those of Lightning's ModelCheckpoint.
    """

    def __init__(self, dirpath: str | Path, *, keep_newest: int = 2, async_save: bool = False, **kwargs: object):
        super().__init__(dirpath, **kwargs)
        if keep_newest < 1:
            raise ValueError(f"found keep_newest={keep_newest}, expected at least 1, the checkpoint just written")
        if self.save_weights_only:
            raise ValueError(
                "found save_weights_only=True, expected False: no run could go on from such a checkpoint; the weights "
                "alone are in the exports (stage_export)"
            )
        if self.save_on_exception:
            raise ValueError(
                "found save_on_exception=True, expected False: an error comes in the middle of a step, whose samples a "
                "run that goes on from there would leave out; save more often (every_n_train_steps)"
            )
        if (example := Path(self.format_checkpoint_name({}))).parent != self._folder:
            raise ValueError(
                f"found filename={self.filename!r}, which makes folders ({example.relative_to(self._folder)}), "
                "expected none, ckpt_path=last looks for none there; with metrics whose name has a '/' set "
                "auto_insert_metric_name=false"
            )
        self.keep_newest = keep_newest
        self.async_save = async_save
        self._written: list[str] = []  # names of this run's checkpoints, oldest first
        self._found_last: str | None = None
        self._lock: TextIO | None = None
        self._reserved_moments = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before fitting, take the directory for this run, on all ranks or on none."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit" or trainer.fast_dev_run:
            return
        refusal = None
        if trainer.is_global_zero and self._lock is None:
            try:
                self._lock = lock_directory(self._folder)
                sweep(self._folder)
            except ValueError as error:
                refusal = str(error)
            except OSError as error:  # the other ranks wait for what is said here
                refusal = (
                    f"{self._folder}: found {error}, expected a folder that can be written to; set "
                    "trainer.default_root_dir to one"
                )
        refusal = trainer.strategy.broadcast(refusal)
        if refusal is not None:
            raise ValueError(refusal)
        if self.async_save and type(trainer.strategy).save_checkpoint is not Strategy.save_checkpoint:
            raise ValueError(
                f"found async_save with the strategy {type(trainer.strategy).__name__}, which writes checkpoints by "
                "itself, all processes together, expected one that leaves it to the plugin; set "
                "checkpoint.async_save=false"
            )
        if self.async_save and self._background(trainer) is None:
            trainer.strategy.checkpoint_io = BackgroundSaves(trainer.strategy.checkpoint_io)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse ranks that begin from different checkpoints."""
        _check_same_start(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to save after validations that come in the middle of a step; no run could go on from there."""
        interval, per_step = trainer.val_check_batch, trainer.accumulate_grad_batches
        saves = self.monitor is not None or self._every_n_epochs >= 1
        if not saves or self._should_save_on_train_epoch_end(trainer) or not trainer.enable_validation:
            return
        if isinstance(interval, int) and interval % per_step:
            raise ValueError(
                f"found validations every {interval} micro-batches, after which checkpoints are to be saved, expected "
                f"a multiple of accumulate_grad_batches={per_step}; set trainer.val_check_interval"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Save when it is time; with `async_save`, raise the error of a save that failed since the last batch.

        Only after an optimizer step. In a resumed run Lightning does not know that the step it starts from was saved:
        it would save it again after the next micro-batch, over the good one, in the middle of the step that follows.
        """
        if (background := self._background(trainer)) is not None:
            background.check()
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            self._reserve(trainer)
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run has not ended well before its last checkpoint is written."""
        super().on_train_end(trainer, pl_module)
        self.finish(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let other runs have the directory, when the last save is done."""
        super().teardown(trainer, pl_module, stage)
        try:
            self.finish(trainer)
        finally:
            self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning calls no teardown then. A save under way is finished: it is of a step that was good."""
        super().on_exception(trainer, pl_module, exception)
        try:
            self.finish(trainer)
        except Exception as error:  # the run ends with the exception that came first
            rank_zero_warn(f"The last checkpoint could not be written either: {error!r}")
        self._release()

    def finish(self, trainer: Trainer) -> None:
        """Wait for the save under way, if one is, and raise its error."""
        if (background := self._background(trainer)) is not None:
            background.wait()

    def state_dict(self) -> dict[str, object]:
        """With the names of this run's checkpoints, so that a resumed run tidies up after it."""
        return super().state_dict() | {"written": list(self._written)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """From `state_dict`; names count in the same directory only."""
        super().load_state_dict(state_dict)
        names = state_dict.get("written", [])
        assert isinstance(names, list)
        self._written = [Path(name).name for name in names] if state_dict["dirpath"] == self.dirpath else []

    def save_now(self, trainer: Trainer) -> Path:
        """Save the step just made, whatever the rules say, and wait until it is written.

        For all ranks, in a hook `on_train_batch_end`.
        """
        candidates = self._monitor_candidates(trainer)
        if self._last_global_step_saved != trainer.global_step:
            self._save_checkpoint(trainer, self._get_metric_interpolated_filepath_name(candidates, trainer))
        self._save_last_checkpoint(trainer, candidates)
        self.finish(trainer)
        return Path(self._last_checkpoint_saved)

    def newest_of_this_run(self, trainer: Trainer) -> Path | None:
        """The newest checkpoint that this run wrote or began from and that verifies, None if none does."""
        self.finish(trainer)
        began = [] if trainer.ckpt_path is None else [Path(trainer.ckpt_path)]
        for path in (*(self._folder / name for name in reversed(self._written)), *began):
            try:
                verify_checkpoint(path)
            except (ValueError, OSError) as error:
                rank_zero_warn(str(error))
                continue
            return path
        return None

    @property
    def _folder(self) -> Path:
        assert self.dirpath is not None
        return Path(self.dirpath)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        name = Path(filepath).name
        self._written = [*(written for written in self._written if written != name), name]
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            self._when_saved(trainer, lambda: name_latest(Path(filepath)))
        self._tidy(trainer)

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Not when Lightning says so, which forgets some in a run that was resumed; `_tidy` knows all."""

    def _tidy(self, trainer: Trainer) -> None:
        """Remove what this run wrote and neither Lightning's rules nor `keep_newest` want."""
        if self.save_top_k == -1:
            return
        wanted = {Path(path).name for path in (*self.best_k_models, self.best_model_path, self.last_model_path)}
        if trainer.ckpt_path is not None and trainer.ckpt_path != self._found_last:
            wanted.add(Path(trainer.ckpt_path).name)  # the user chose it by name
        wanted |= set(self._written[-self.keep_newest :])
        for name in self._written:
            if name not in wanted:
                trainer.strategy.remove_checkpoint(str(self._folder / name))
        self._written = [name for name in self._written if name in wanted]

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """With `save_last: link`, one link for all runs of the directory; Lightning numbers them from the second on."""
        if self.save_last != "link" or self.save_top_k == 0 or not self._last_checkpoint_saved:
            super()._save_last_checkpoint(trainer, monitor_candidates)
            return
        link = self._folder / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
        self.last_model_path, saved = str(link), Path(self._last_checkpoint_saved)
        if trainer.is_global_zero:
            self._when_saved(trainer, lambda: link_checkpoint(link, saved))
        trainer.strategy.barrier()

    def file_exists(self, filepath: str | Path, trainer: Trainer) -> bool:
        """Lightning looks for a name that is free; one that is being written is not."""
        background = self._background(trainer)
        if background is not None and background.writes(filepath):
            background.wait()
        return super().file_exists(filepath, trainer)

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """Lightning asks for candidates and takes the newest; it gets the one that verifies."""
        path, skipped = newest_checkpoint(self._folder, self.FILE_EXTENSION)
        for reason in skipped:
            rank_zero_info(f"Skipped a checkpoint. {reason}")
            if trainer.is_global_zero:
                record(trainer.default_root_dir, "checkpoint_skipped", reason=reason)
        self._found_last = None if path is None else str(path)
        if path is not None:
            rank_zero_info(f"The last checkpoint that verifies is {path}")
        return set() if path is None else {str(path)}

    def _reserve(self, trainer: Trainer) -> None:
        """Memory for a copy in the background, as soon as the optimizer has moments that it had not before.

        All ranks ask what a checkpoint would hold, as they do for a save: callbacks may exchange something then.
        """
        background, moments = self._background(trainer), sum(len(optimizer.state) for optimizer in trainer.optimizers)
        if background is not None and moments != self._reserved_moments:
            self._reserved_moments = moments
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            if trainer.is_global_zero:
                background.reserve(checkpoint)

    @staticmethod
    def _background(trainer: Trainer) -> BackgroundSaves | None:
        plugin = trainer.strategy.checkpoint_io
        return plugin if isinstance(plugin, BackgroundSaves) else None

    def _when_saved(self, trainer: Trainer, action: Callable[[], None]) -> None:
        background = self._background(trainer)
        if background is None:
            action()
        else:
            background.then(action)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _check_same_start(trainer: Trainer) -> None:
    """Each rank looks for `last` by itself, before it knows the others. They would train on, each at its own step.

    Raises:
        ValueError: On all ranks.
    """
    if trainer.world_size == 1:
        return
    starts: list[str | None] = [None] * trainer.world_size
    distributed.all_gather_object(starts, None if trainer.ckpt_path is None else str(trainer.ckpt_path))
    different = {rank: start for rank, start in enumerate(starts) if start != starts[0]}
    if different:
        raise ValueError(
            f"found {starts[0]} as the checkpoint that rank 0 begins from and {different} for others, expected one; a "
            "rank could not read a file, or does not see it yet. Start again, or name one with --ckpt_path"
        )

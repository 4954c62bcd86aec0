"""Writes down the error that ends a run, as an event beside those of incidents that it survived."""

from __future__ import annotations

import warnings

from lightning.pytorch import Callback, LightningModule, Trainer

from theworld.training.events import record


class FailureEvent(Callback):
    """Each rank that ends with an error writes the event `run_failed`: a refused resume, a save that failed, any other.

    An interrupted or preempted run has not failed.
    """

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Before other callbacks put their things away."""
        if isinstance(exception, Exception):
            facts = {"error": type(exception).__name__, "message": str(exception), "while": str(trainer.state.fn)}
            try:
                record(trainer.default_root_dir, "run_failed", step=trainer.global_step, **facts)
            except OSError as error:  # such as a full disk; the run is to end with the error that came first
                warnings.warn(f"The event run_failed could not be written: {error!r}", stacklevel=1)

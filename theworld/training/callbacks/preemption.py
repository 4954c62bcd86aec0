"""A scheduler takes the machine away: save at the end of the optimizer step, and leave with a code that says so."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import threading
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import distributed

from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.events import record
from theworld.training.module import TheWorldModule
from theworld.training.signals import NotedSignals, leave_requeueing_to_the_exit_code, take_over
from theworld.types import Batch

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers announce the end of a job with."""


class Preempted(SystemExit):
    """The run was saved and ends; its code is what the process exits with."""


class Preemption(Callback):
    """After SIGTERM or SIGUSR1 to any rank, all save the step they are in when it is complete, and exit with one code.

    The checkpoint is that of `CrashSafeCheckpoint`, and `--ckpt_path=last` goes on from it as if nothing had happened.
    A scheduler requeues on the exit code. Without a checkpoint callback nothing is saved and the code is 128 + the
    signal's number, so that no scheduler begins anew again and again.

    A second signal changes nothing: the run is leaving already. Validation and stage exports are waited for. When the
    run has not left after `grace_seconds`, all stacks go to the standard error and the process exits with the same
    code, so that it goes on from the checkpoint before. Signals that come before fitting end the process as ever.

    With several ranks this takes one small exchange between hosts every `every_n_steps` steps, over gloo.

    Args:
        exit_code: Of a run that was saved.
        every_n_steps: Optimizer steps from one look to the next.
        grace_seconds: From the signal to the forced exit. Less than the scheduler leaves until it kills.
    """

    def __init__(self, *, exit_code: int = 85, every_n_steps: int = 1, grace_seconds: float = 150.0) -> None:
        if not 1 <= exit_code <= 125:
            raise ValueError(f"found exit_code={exit_code}, expected 1 to 125: 0 is success, shells use those above")
        if every_n_steps < 1:
            raise ValueError(f"found every_n_steps={every_n_steps}, expected at least 1 optimizer step")
        if grace_seconds <= 0:
            raise ValueError(f"found grace_seconds={grace_seconds}, expected more than 0 seconds")
        self.exit_code = exit_code
        self.every_n_steps = every_n_steps
        self._signals = NotedSignals(SIGNALS, grace_seconds=grace_seconds, overdue=self._force_exit)
        self._group: distributed.ProcessGroup | None = None
        self._folder = Path()
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the signals over before the model is loaded, which may take minutes."""
        leave_requeueing_to_the_exit_code(trainer)
        if stage != "fit":
            return
        take_over(trainer)
        self._folder = Path(trainer.default_root_dir)
        if threading.current_thread() is threading.main_thread():
            self._signals.install()
        else:
            rank_zero_warn("fit runs outside of the main thread, which alone hears signals: preemption is not noticed")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the way to the other ranks."""
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TheWorldModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """At the end of an optimizer step, ask whether any rank was told to go."""
        if not pl_module.steps_after(batch_idx):
            return
        self._step = trainer.global_step
        if self._step % self.every_n_steps == 0 and (number := self._of_any_rank(trainer)):
            self._leave(trainer, signal.Signals(number))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._signals.remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning calls no teardown then. The signals are given back unless the process leaves because of one."""
        if isinstance(exception, Preempted):
            self._signals.ignore()
        else:
            self._signals.remove()

    def _of_any_rank(self, trainer: Trainer) -> int:
        """Number of the signal, the same on all ranks; 0 for none."""
        if trainer.world_size == 1:
            return self._signals.received
        number = torch.tensor(self._signals.received)
        distributed.all_reduce(number, distributed.ReduceOp.MAX, group=self._group)
        return int(number)

    def _leave(self, trainer: Trainer, number: signal.Signals) -> None:
        saver = next((c for c in trainer.checkpoint_callbacks if isinstance(c, CrashSafeCheckpoint)), None)
        checkpoint = saver.save_now(trainer) if saver is not None else None
        code = self.exit_code if checkpoint is not None else 128 + number
        saved = f"saved {checkpoint}" if checkpoint is not None else "no checkpoint callback, nothing is saved"
        if trainer.is_global_zero:
            facts = {"signal": number.name, "checkpoint": checkpoint, "exit_code": code}
            record(self._folder, "preempted", step=trainer.global_step, **facts)
        trainer.strategy.barrier("preempted")
        # Lightning would write what the step has logged behind this hook.
        trainer._logger_connector.on_batch_end()
        trainer._logger_connector.update_train_step_metrics()
        pl_module = trainer.lightning_module
        pl_module.print(f"{number.name}: {saved} at optimizer step {trainer.global_step}; exit code {code}")
        raise Preempted(0 if self._is_launched_by_a_rank(trainer) else code)

    def _is_launched_by_a_rank(self, trainer: Trainer) -> bool:
        """Whether Lightning started this process from another rank, which it would kill after a code other than 0."""
        if trainer.world_size == 1:
            return False
        ranks: list[tuple[str, int]] = [("", 0)] * trainer.world_size
        distributed.all_gather_object(ranks, (socket.gethostname(), os.getpid()), group=self._group)
        return (socket.gethostname(), os.getppid()) in ranks

    def _force_exit(self, name: str) -> None:
        """In a thread, when the main one is stuck."""
        try:
            faulthandler.dump_traceback(2)  # whatever has become of sys.stderr
            facts = {"signal": name, "grace_seconds": self._signals.grace_seconds, "exit_code": self.exit_code}
            record(self._folder, "preemption_overdue", step=self._step, **facts)
        finally:
            os._exit(self.exit_code)

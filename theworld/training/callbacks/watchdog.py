"""Ends a run on every rank, in bounded time, when a rank is dead, stopped or stuck; and says which one it was."""

from __future__ import annotations

import faulthandler
import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.optim import Optimizer

from theworld.training.callbacks.preemption import Preempted
from theworld.training.events import record
from theworld.training.heartbeats import FOLDER, Beat, HeartbeatFiles, Verdict, Watch
from theworld.types import Batch


class Watchdog(Callback):
    """A thread of each rank says that it lives, and watches others (`theworld.training.heartbeats`).

    Three things end the run: a rank that gives no sign of life for `dead_after` seconds; one that failed, if others
    still run after as long; and a main thread that has done nothing for `stuck_after` seconds. Each rank then writes an
    event `rank_silent`, `rank_failed` or `stuck` with the ranks that are to blame, and the stacks of all its threads to
    the standard error, and exits with `exit_code`, whatever its main thread waits for. A rank whose main thread gets an
    error from the lost connection first waits until it is known who is to blame, and exits with that error. From the
    cause to the last exit this takes no longer than about twice the limit. With one rank, only being stuck is noticed.

    Who is stuck is judged by progress from hook to hook: the rank that is furthest behind, or all that are. This comes
    first among the callbacks, so that no exchange of another one comes before its hooks.

    Args:
        dead_after: Seconds; longer than the file system of `trainer.default_root_dir` ever hangs.
        stuck_after: Seconds; longer than loading, compilation, validation steps and exports, which are no progress.
        exit_code: Of ranks that cannot go on through no fault of their own.
    """

    def __init__(self, *, dead_after: float = 120.0, stuck_after: float = 1800.0, exit_code: int = 86) -> None:
        for name, seconds in (("dead_after", dead_after), ("stuck_after", stuck_after)):
            if seconds <= 0:
                raise ValueError(f"found {name}={seconds}, expected more than 0 seconds")
        if not 1 <= exit_code <= 125:
            raise ValueError(f"found exit_code={exit_code}, expected 1 to 125: 0 is success, shells use those above")
        self.dead_after = dead_after
        self.stuck_after = stuck_after
        self.exit_code = exit_code
        self._interval = min(dead_after, stuck_after) / 12
        self._root = Path()
        self._own = Beat(run="")
        self._step = 0
        self._files: HeartbeatFiles | None = None
        self._wake = threading.Event()  # the main thread has ended or failed
        self._thread: threading.Thread | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to say so."""
        if stage != "fit" or self._thread is not None:
            return
        self._root = Path(trainer.default_root_dir)
        run = trainer.strategy.broadcast(f"{time.time_ns()}")
        self._own = Beat(run=run, host=socket.gethostname(), pid=os.getpid())
        self._files = HeartbeatFiles(self._root / FOLDER, run) if trainer.world_size > 1 else None
        self._wake.clear()
        watch = Watch(
            trainer.global_rank,
            trainer.world_size,
            self._files.read if self._files is not None else lambda _: None,
            dead_after=self.dead_after,
            stuck_after=self.stuck_after,
            began=time.monotonic(),
        )
        self._thread = threading.Thread(target=self._run, args=(watch,), name="watchdog", daemon=True)
        self._thread.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Progress."""
        self._step = trainer.global_step
        self._progress("forward")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Progress."""
        self._progress("backward")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Progress."""
        self._progress("optimizer step")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Progress."""
        self._progress("end of the batch, and the next one")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Progress."""
        self._progress("validation")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]) -> None:
        """Progress."""
        self._progress("saving")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End, as it should be."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say so, and wait until it is known who else has failed, or is dead."""
        if isinstance(exception, Preempted):
            self._end()
        elif self._thread is not None:
            self._own = replace(self._own, state="failed", doing=type(exception).__name__)
            self._wake.set()
            self._thread.join()
            self._thread = None
            if trainer.world_size > 1:
                threading.Thread(target=self._leave_anyway, name="watchdog-leaves", daemon=True).start()

    def _progress(self, doing: str) -> None:
        self._own = replace(self._own, progress=self._own.progress + 1, doing=f"step {self._step}: {doing}")

    def _end(self) -> None:
        if self._thread is None:
            return
        self._own = replace(self._own, state="ended")
        self._wake.set()
        self._thread.join()
        self._thread = None

    def _run(self, watch: Watch) -> None:
        """The thread."""
        beat = 0
        while True:
            beat += 1
            own = replace(self._own, beat=beat)
            self._write(watch.rank, own)
            if own.state == "ended":
                return
            verdict = watch.look(time.monotonic(), own)
            if verdict is not None:
                self._judge(verdict, watch.rank, own)
                return
            if own.state == "failed" and watch.all_over():
                return
            if own.state == "running":
                self._wake.wait(self._interval)
            else:
                time.sleep(self._interval / 10)

    def _write(self, rank: int, beat: Beat) -> None:
        if self._files is None:
            return
        try:
            self._files.write(rank, beat)
        except OSError as error:  # such as a full disk: the next beat may come through, and others wait for it
            os.write(2, f"rank {rank}: no heartbeat: {error}\n".encode())

    def _judge(self, verdict: Verdict, rank: int, own: Beat) -> None:
        """Tell the others, write it down, and exit, unless the main thread is leaving by itself."""
        failed = replace(self._own, state="failed", beat=own.beat + 1, accused=verdict.ranks)
        try:
            self._write(rank, failed)
            facts = {"ranks": list(verdict.ranks), "seconds": round(verdict.seconds, 3), "doing": own.doing}
            record(self._root, verdict.kind, step=self._step, rank=rank, exit_code=self.exit_code, **facts)
            what = f"{verdict.kind} after {verdict.seconds:.1f} s, ranks {list(verdict.ranks)}"
            os.write(2, f"rank {rank}: {what}; {own.doing}\n".encode())
            if own.state == "running":
                faulthandler.dump_traceback(2)
        finally:
            if own.state == "running":
                os._exit(self.exit_code)

    def _leave_anyway(self) -> None:
        """If taking the process group down hangs; a daemon, which ends with the process."""
        time.sleep(self.dead_after)
        os._exit(self.exit_code)

"""How fast the run goes: tokens, target tokens and samples a second, and how full the rows are."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from theworld.training.module import TheWorldModule
from theworld.types import PADDING_DOCUMENT, Batch


@dataclass
class _Interval:
    """What was trained since `start` (seconds of the host's clock; None until the first batch)."""

    start: float | None = None
    tokens: Tensor | int = 0
    capacity: int = 0
    targets: int = 0
    samples: int = 0


class Throughput(Callback):
    """Logs how fast the run goes, every `trainer.log_every_n_steps` optimizer steps.

    - `throughput/tokens_per_second`: tokens that are not padding
    - `throughput/target_tokens_per_second`: tokens that carry loss
    - `throughput/samples_per_second`: conversations
    - `throughput/fill`: share of the token budget that is not padding, between 0 and 1

    Rates are summed over all ranks, the fill is averaged. The clock is the host's. Padding is counted on the device
    and read only when logged. Time in validation does not count, nor does time at the end of a stage as long as this
    callback comes before those that work there, as it does in `theworld.cli`.
    """

    def __init__(self) -> None:
        self._interval = _Interval()

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        """Start the clock, if it does not run."""
        if self._interval.start is None:
            self._interval.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TheWorldModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Count a micro-batch, and log when it is time."""
        interval = self._interval
        interval.tokens = interval.tokens + (batch.document_ids != PADDING_DOCUMENT).sum()
        interval.capacity += batch.document_ids.numel()
        interval.targets += batch.num_target_tokens
        interval.samples += len(batch.ids)
        if not pl_module.steps_after(batch_idx):
            return
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self._log(pl_module)
            self._interval = _Interval(start=time.perf_counter())
        if pl_module.finished_stage(batch_idx) is not None:
            self._interval = _Interval()

    def on_validation_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Forget the interval that validation cuts in two."""
        self._interval = _Interval()

    def _log(self, pl_module: TheWorldModule) -> None:
        interval = self._interval
        assert interval.start is not None, "the clock starts with the first batch"
        tokens = int(interval.tokens)
        seconds = time.perf_counter() - interval.start
        counts = {"tokens": tokens, "target_tokens": interval.targets, "samples": interval.samples}
        pl_module.log_dict(
            {f"throughput/{name}_per_second": count / seconds for name, count in counts.items()},
            sync_dist=True,
            reduce_fx="sum",
            batch_size=1,
        )
        pl_module.log("throughput/fill", tokens / interval.capacity, sync_dist=True, batch_size=1)

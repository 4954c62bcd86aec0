"""How often a step makes the host wait for the device: by following values on the CPU, and by CUDA's own account."""

from __future__ import annotations

import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger

from tests.training.conftest import one_stage
from tests.training.device_reads import DeviceReads
from theworld.models import fusion, world_encoder
from theworld.training import optimizers
from theworld.training.callbacks.nonfinite import NonFiniteGuard
from theworld.training.callbacks.preemption import Preemption
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_progress import StageProgressBar
from theworld.training.callbacks.throughput import Throughput

ACCUMULATE, EVERY, STEPS = 2, 3, 7
STEP_RATES = {"world_projector": 1e-3, "vision": 1e-3, "language": 1e-3}


@pytest.fixture
def waits(make_module, make_data, make_trainer, tmp_path, monkeypatch):
    """Run with the standing callbacks and a logger; for each optimizer step from the second on, where it waited."""
    monkeypatch.setattr(fusion, "_check_count", lambda *_: None)  # both look at the CPU's tensors only
    monkeypatch.setattr(world_encoder, "check_range", lambda *_: None)
    adamw = optimizers._adamw
    monkeypatch.setattr(optimizers, "_adamw", lambda settings, *, fused: adamw(settings, fused=True))  # as on a GPU

    def run(bar: RichProgressBar, *callbacks: Callback, steps: int = STEPS) -> list[list[str]]:
        reads = DeviceReads()
        trainer = make_trainer(
            reads,
            Quarantine(),
            NonFiniteGuard(),
            Preemption(),
            Throughput(),
            ModelCheckpoint(dirpath=tmp_path / "saved", every_n_train_steps=100),
            bar,
            *callbacks,
            logger=CSVLogger(tmp_path),
            log_every_n_steps=EVERY,
            enable_progress_bar=True,
            enable_checkpointing=True,
            gradient_clip_val=1.0,
            accumulate_grad_batches=ACCUMULATE,
        )
        data = make_data(micro_batches_per_step=ACCUMULATE)
        with reads:
            trainer.fit(make_module(stages=one_stage(steps, **STEP_RATES)), datamodule=data)
        assert len(reads.batches) == steps * ACCUMULATE
        return [sum(reads.batches[ACCUMULATE * step :][:ACCUMULATE], []) for step in range(1, steps)]

    return run


def test_steps_do_not_wait_and_logged_ones_read_two_numbers(waits):
    """Thrice: the loss for the bar, then it and the gradient's norm for the logger, which find the device done."""
    found = waits(StageProgressBar())
    for step, places in enumerate(found, 2):
        assert len(places) == (3 if step % EVERY == 0 else 0), places
    assert sum(len(places) for places in found) / len(found) <= 1


def test_the_account_can_fail(waits):
    """Control: a callback that reads the loss, one that logs a number, and Lightning's bar with a metric on it."""

    class Reads(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            float(outputs["loss"])

    class Logs(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            pl_module.log("a/number", 1.0, batch_size=1, prog_bar=True)

    (reads,), (logs,) = waits(StageProgressBar(), Reads(), steps=2), waits(RichProgressBar(), Logs(), steps=2)
    assert [place.split()[0] for place in reads] == ["aten::_local_scalar_dense"] * ACCUMULATE
    assert {place.split()[0] for place in logs} == {"aten::_local_scalar_dense", "upload"}


@pytest.mark.gpu
def test_on_a_gpu_a_step_waits_at_most_once(make_module, make_data, make_trainer, tmp_path):
    """As CUDA counts it (`torch.cuda.set_sync_debug_mode`), between steps that are logged and after the first two."""
    starts: list[int] = []

    class Steps(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            starts.append(len(caught))

    trainer = make_trainer(
        Steps(),
        Quarantine(),
        NonFiniteGuard(),
        Preemption(),
        Throughput(),
        StageProgressBar(),
        logger=CSVLogger(tmp_path),
        accelerator="gpu",
        precision="bf16-mixed",
        log_every_n_steps=EVERY,
        enable_progress_bar=True,
        gradient_clip_val=1.0,
    )
    module = make_module(dtype="bfloat16", stages=one_stage(STEPS, **STEP_RATES))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            torch.ones(1, device="cuda").item()
            assert any("synchronizing" in str(warning.message) for warning in caught)  # control
            trainer.fit(module, datamodule=make_data())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len(starts) == STEPS
    for step, (begin, end) in enumerate(zip(starts, starts[1:], strict=False), 1):
        places = [f"{w.filename}:{w.lineno}" for w in caught[begin:end] if "synchronizing" in str(w.message)]
        if step > 2 and step % EVERY:
            assert len(places) <= 1, f"step {step}: {places}"

"""Our training step through the Lightning module beside the baselines: one process, one card, the same samples.

    python experiments/speed/step.py --variants seed projection projection_cached lean liger --output step.json
    python experiments/speed/step.py --gemma --variants seed gemma --output gemma.json   # Gemma alone, 2 x 725
    python experiments/speed/tables.py step.json --output step                            # step.md and step.png

Random weights at true dimensions. Every variant starts from the same weights; its first loss, and the gradient of the
projector in its first step, are compared with the first variant's before anything is timed. Then the median of
`--steps` steps by CUDA events, and `max_memory_allocated`.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from baselines import BASELINES, as_published, baseline
from clock import Clock, SameRow
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from rows import TARGETS, TEXT, packed_row, padded_rows, random_model, samples_of
from torch import Tensor

from theworld.assets import TINY_BASE
from theworld.models.execution import set_execution
from theworld.models.live_rows import with_live_rows
from theworld.models.low_bit import quantise_language
from theworld.models.theworld import TheWorld
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_progress import StageProgressBar
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.callbacks.throughput import Throughput
from theworld.training.module import TheWorldModule
from theworld.training.optimizer_rules import set_trainable
from theworld.training.optimizers import prepare_weights
from theworld.training.stages import LearningRates, Stage
from theworld.types import Batch

COUNTED = ("seed", "projection_raw", "projection", "projection_cached", "gemma")
"""Variants whose kernel launches are counted."""

LOSSES_AGREE = 1e-2
"""Largest relative difference of first losses: what 34 layers in bfloat16 round, with room."""

GRADIENTS_AGREE = 0.99
"""Least cosine between first gradients of the projector: 0.9996 is usual, 0.05 was seen beside a right loss."""

VERSIONS = ("transformers", "flash-attn-4", "nvidia-cutlass-dsl", "quack-kernels", "torchao", "liger-kernel")
"""Packages whose versions a result depends on."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of our runs: the stage, and where its features come from."""

    what: str
    rates: dict[str, float] = field(default_factory=lambda: {"world_projector": 1e-4})
    recompute: str = "none"
    cached: bool = False
    backend: str = "flash4"
    optimizer: str = "adamw"
    low_bit: bool = False
    raw: bool = False


GEMMA = {"vision": 1e-5, "language": 1e-5}
ALL = {"world_projector": 1e-5, "language": 1e-5}
VARIANTS = {
    "projection": Variant(what="projection, live towers"),
    "projection_raw": Variant(what="the same step without Lightning, its row on the device", raw=True),
    "projection_flash": Variant(what="the same with PyTorch's FlashAttention-2", backend="flash"),
    "projection_cached": Variant(what="projection, cached features", cached=True),
    "lean": Variant(what="projection, every decoder layer recomputed", recompute="full"),
    "selective": Variant(what="projection, every second decoder layer recomputed", recompute="selective"),
    "vision": Variant(what="vision stage", rates={"world_projector": 1e-4, "vision": 1e-5}),
    "language": Variant(
        what="language stage, bfloat16 AdamW with stochastic rounding", rates=ALL, cached=True, optimizer="adamw_bf16"
    ),
    "language_8bit": Variant(
        what="language stage, AdamW with 8-bit moments", rates=ALL, cached=True, optimizer="adamw_8bit"
    ),
    "low_bit": Variant(what="lean with the language model in 8 bits", recompute="full", low_bit=True),
    "low_bit_cached": Variant(what="the same with cached features", recompute="full", low_bit=True, cached=True),
    "language_masters": Variant(what="language stage, float32 masters", rates=ALL, cached=True, recompute="full"),
    "gemma": Variant(what="Gemma alone, all of it trains", rates=GEMMA, optimizer="adamw_bf16"),
    "gemma_flash": Variant(what="with FlashAttention-2", rates=GEMMA, optimizer="adamw_bf16", backend="flash"),
    "gemma_sdpa": Variant(what="with a mask tensor", rates=GEMMA, optimizer="adamw_bf16", backend="sdpa"),
}
"""Ours, in an order in which each finds what it needs: a stage that trains the language model comes last."""


class FirstStep(Callback):
    """Loss and gradient of the projector in the first step."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.gradient: Tensor | None = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TheWorldModule, optimizer: Any) -> None:
        if trainer.global_step == 0:
            self.gradient = projector_gradient(pl_module.world)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.loss = float(outputs["loss"])


def projector_gradient(model: TheWorld) -> Tensor | None:
    """All of it as one float32 vector."""
    if model.cosmos_encoder is None:
        return None
    return torch.cat([p.grad.flatten().float() for p in model.cosmos_encoder.projector.parameters()])


def run_ours(variant: Variant, model: TheWorld, clock: Clock, batches: list[Batch], *callbacks: Callback) -> FirstStep:
    """Train as `theworld fit` does, with the standing callbacks that work in every step."""
    first = FirstStep()
    module = make_module(variant, model, clock.total)
    if variant.raw:
        raw(module, clock, batches[0], first)
        return first
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator=model.device.type,
            devices=1,
            precision="bf16-mixed",
            max_epochs=-1,
            log_every_n_steps=10,
            logger=CSVLogger(folder),
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[clock, first, Quarantine(), StageSchedule(), Throughput(), StageProgressBar(), *callbacks],
        )
        trainer.fit(module, train_dataloaders=SameRow(batches, clock.total))
    return first


def make_module(variant: Variant, model: TheWorld, steps: int) -> TheWorldModule:
    """The module around the random model, in place of one that it would load."""
    module = TheWorldModule(
        base=TINY_BASE,
        stages={
            "stage": Stage(learning_rates=LearningRates(**variant.rates), max_steps=steps, recompute=variant.recompute)
        },
        enable_world=model.config.enable_world,
        attention_backend=variant.backend,
        compile_layers=True,
        optimizer=variant.optimizer,
    )
    module.model = model
    model.attention_backend = variant.backend
    as_published(model, False)
    return module


def raw(module: TheWorldModule, clock: Clock, batch: Batch, first: FirstStep) -> None:
    """What `fit` computes, as plain torch."""
    model, groups = module.world, module.schedule.groups
    set_trainable(model, groups)
    prepare_weights(module.optimizer_choice, model, groups)
    set_execution(model, compiled=True, recompute="none")
    optimizer = module.configure_optimizers()
    there = with_live_rows(batch, model.config).to(model.device)
    for number in range(clock.total):
        clock.tick(number)
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = module(there).loss_sum / there.step_target_tokens
        loss.backward()
        if number == 0:
            first.loss, first.gradient = loss.item(), projector_gradient(model)
        optimizer.step()
        optimizer.zero_grad()


def run_baseline(name: str, model: TheWorld, clock: Clock, batch: Batch, trained: set[str]) -> FirstStep:
    """The raw loop; the gradient of the first step is taken by a hook, as the step clears it."""
    first = FirstStep()
    step = baseline(name, model, batch, trained)
    parts: dict[str, Tensor] = {}
    projector = [] if model.cosmos_encoder is None else list(model.cosmos_encoder.projector.named_parameters())

    def keep(name: str, parameter: Tensor) -> None:
        parts[name] = parameter.grad.flatten().float()

    hooks = [p.register_post_accumulate_grad_hook(partial(keep, name)) for name, p in projector]
    for number in range(clock.total):
        clock.tick(number)
        loss = step()
        if number == 0:
            first.loss = loss.item()
            first.gradient = torch.cat([parts[name] for name, _ in projector]) if projector else None
            for hook in hooks:
                hook.remove()
    return first


def as_loaded(model: TheWorld, kept: dict[str, Tensor]) -> None:
    """Give the trained weights their first values and type back, on the GPU (a trainer ends on the CPU)."""
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
        if name in kept:
            parameter.data = kept[name].to(parameter.device, copy=True)
    gc.collect()
    torch.cuda.empty_cache()


def measure(
    name: str, model: TheWorld, kept: dict[str, Tensor], arguments: argparse.Namespace
) -> tuple[dict[str, Any], FirstStep]:
    """The variant from the first weights."""
    as_loaded(model, kept)
    before = torch.cuda.memory_allocated() / 2**30
    if before > 1.05 * arguments.base_gib:
        print(f"{before:.2f} GiB before {name}: {_largest(model)}", flush=True)
    clock = Clock(arguments.steps, counts=name in COUNTED)
    samples = samples_of(model, text=TEXT[model.config.enable_world], targets=TARGETS)
    if name in BASELINES:
        trained = {"vision", "language"} if arguments.gemma else {"world_projector"}
        first = run_baseline(name, model, clock, padded_rows(samples, model.device), trained)
        what = BASELINES[name]
    else:
        variant = VARIANTS[name]
        if variant.low_bit:
            quantise_language(model)
        first = run_ours(variant, model, clock, [packed_row(model, samples, cached=variant.cached)])
        what = variant.what
    return clock.result() | {"what": what, "loss": first.loss, "gib_before": before}, first


def _largest(model: TheWorld) -> list[str]:
    own = {p.data_ptr() for p in [*model.parameters(), *model.buffers()]}
    found = [t for t in gc.get_objects() if isinstance(t, Tensor) and t.is_cuda and t.data_ptr() not in own]
    found.sort(key=lambda t: -t.numel() * t.element_size())
    return [f"{tuple(t.shape)} {t.dtype}" for t in found[:8]]


def agreement(first: FirstStep, reference: FirstStep) -> dict[str, float]:
    """Relative difference of the losses, and how far the gradients point the same way."""
    found = {"loss_difference": abs(first.loss - reference.loss) / reference.loss}
    if first.gradient is not None and reference.gradient is not None:
        found["gradient_cosine"] = torch.cosine_similarity(first.gradient, reference.gradient, dim=0).item()
        found["gradient_norm_ratio"] = (first.gradient.norm() / reference.gradient.norm()).item()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", required=True, choices=[*BASELINES, *VARIANTS])
    parser.add_argument("--gemma", action="store_true")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    order = arguments.variants
    if any(first.startswith("liger") and not then.startswith("liger") for first, then in pairwise(order)):
        parser.error("Liger patches the model for good, so what comes behind it would run with it: name it last")
    started = time.time()
    faulthandler.dump_traceback_later(240, repeat=True)
    model = random_model(enable_world=not arguments.gemma)
    kept = {n: p.detach().cpu() for n, p in model.named_parameters() if arguments.gemma or "language_model" not in n}
    arguments.base_gib = torch.cuda.memory_allocated() / 2**30
    results: dict[str, Any] = {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        **{name: _version(name) for name in VERSIONS},
        "steps": arguments.steps,
    }
    reference: FirstStep | None = None
    for name in order:
        if name in BASELINES:
            torch._dynamo.reset()  # its layers are patched; ours share what is compiled
        result, first = measure(name, model, kept, arguments)
        reference = reference or first
        results[name] = result | agreement(first, reference)
        print(f"{time.time() - started:.0f} s {name}: {results[name]}", flush=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
        if not name.startswith("low_bit"):
            _stop_if_other(name, results[name])


def _stop_if_other(name: str, result: dict[str, Any]) -> None:
    difference, cosine = result["loss_difference"], result.get("gradient_cosine", 1.0)
    if not difference <= LOSSES_AGREE:
        raise SystemExit(f"{name}: its first loss differs by {difference:.1%}, so it computes something else")
    if not cosine >= GRADIENTS_AGREE:
        raise SystemExit(f"{name}: its first gradient has a cosine of {cosine:.3f}, so it computes something else")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


if __name__ == "__main__":
    main()

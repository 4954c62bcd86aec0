"""`theworld replay`: an optimizer step that was not finite, made again from what is kept of it, and looked into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from theworld.data.packing.collator import pack
from theworld.data.packing.loader import PlanLoader
from theworld.data.world_block import without_world_tokens, world_token_counts
from theworld.training.checkpoint_contents import trained_weights
from theworld.training.module import TheWorldModule
from theworld.training.nonfinite.dump import StepDump, read_dump, read_generators, read_weights, set_generators
from theworld.types import Batch


@dataclass
class Findings:
    """What was found when the step was made again.

    Attributes:
        losses: Of each micro-batch, of all ranks, in the order of the plan.
        gradients: Parameters whose gradient of the whole step is not finite.
        samples: Samples that alone give something that is not finite → where it appears first.
    """

    losses: list[float] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)
    samples: dict[str, str] = field(default_factory=dict)

    @property
    def is_reproduced(self) -> bool:
        """Whether any loss or gradient is not finite again."""
        return bool(self.gradients) or not torch.tensor(self.losses).isfinite().all()


class Replay(Callback):
    """Makes the one step again, all ranks' micro-batches on one device, then each of its samples alone.

    Weights are those kept with the step; where there are none, those of the checkpoint that the trainer was given, and
    the steps from there on are made again first.

    Args:
        folder: The step's own, from the run.

    Attributes:
        findings: Filled by the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dumps: list[StepDump] = read_dump(folder)
        self.step = self.dumps[0].step
        self.findings = Findings()

    def on_fit_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Begin at the step, with the weights that were kept."""
        if not self.dumps[0].has_weights:
            return
        weights, kept = (
            trained_weights(pl_module.world, pl_module.schedule.groups, prefix=""),
            read_weights(self.folder),
        )
        if different := sorted(weights.keys() ^ kept.keys()):
            raise ValueError(
                f"{self.folder}: found weights that differ from those model.stages trains in {len(different)} names "
                f"{different[:3]}, expected the same; replay with the settings of the run"
            )
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(kept[name])
        progress = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
        progress.ready = progress.completed = self.step

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Begin at the step's rows."""
        if self.dumps[0].has_weights:
            _loader(trainer).seek(self.step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        """Refuse other samples than the step's; begin with its random numbers."""
        if trainer.global_step != self.step:
            return
        number = len(self.findings.losses)
        if number == 0:
            set_generators(read_generators(self.folder))
        turn, rank = divmod(number, len(self.dumps))
        expected = self.dumps[rank].micro_batches[turn].ids
        if batch.ids != expected:
            raise ValueError(
                f"found the samples {batch.ids[:3]}… in micro-batch {number} of step {self.step}, expected "
                f"{expected[:3]}… as in {self.folder}; replay with the data, seed and token_budget of the run"
            )

    def on_before_backward(self, trainer: Trainer, pl_module: TheWorldModule, loss: Tensor) -> None:
        """Note the loss."""
        if trainer.global_step == self.step:
            self.findings.losses.append(float(loss.detach()))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TheWorldModule, optimizer: Optimizer) -> None:
        """Note the gradient, then take the samples one by one. The update that follows is of no interest."""
        if trainer.global_step != self.step:
            return
        self.findings.gradients = _not_finite(pl_module.world)
        loader = _loader(trainer)
        epoch, step = divmod(self.step, loader.plan.num_steps)
        plan = loader.plan_of(epoch)
        for row in plan.rows_of(step):
            for number, fewer in zip(plan.row(row).tolist(), plan.row_fewer(row).tolist(), strict=True):
                self._alone(number, fewer, loader, trainer, pl_module)

    def _alone(self, number: int, fewer: int, loader: PlanLoader, trainer: Trainer, pl_module: TheWorldModule) -> None:
        mixture = loader.mixture
        cached = loader.cached.before(self.step) & mixture.features.keys()
        sample = without_world_tokens(mixture.read(number, cached=cached), fewer)
        length, padding = len(sample.input_ids), mixture.processor.pad_token_id
        counts = () if loader.random_num_world_tokens is None else world_token_counts([sample])
        batch = pack([sample], budget=length, pad_token_id=padding, step_target_tokens=1.0, world_token_counts=counts)
        pl_module.zero_grad()
        moved = trainer.strategy.batch_to_device(pl_module.on_before_batch_transfer(batch, 0))
        with _watched(pl_module.world) as first, trainer.precision_plugin.train_step_context():
            loss = pl_module(moved).loss_sum
            loss.backward()
        if first or not loss.isfinite():
            self.findings.samples[sample.id] = first[0] if first else "the loss"


def report(replay: Replay) -> str:
    """What was found, in lines."""
    found, ranks = replay.findings, len(replay.dumps)
    lines = [f"Step {replay.step}, {'made again' if found.is_reproduced else 'made again, and finite this time'}"]
    for number, loss in enumerate(found.losses):
        turn, rank = divmod(number, ranks)
        kept = replay.dumps[rank].micro_batches[turn]
        lines.append(f"  micro-batch {turn} of rank {rank}: loss {loss}, then {kept.loss}; {', '.join(kept.ids)}")
    lines.append(f"  gradient: not finite in {len(found.gradients)} parameters: {_some(found.gradients)}")
    lines += [f"  {name} alone: not finite, first in {where}" for name, where in found.samples.items()]
    if not found.samples:
        lines.append("  each sample alone is finite")
    return "\n".join(lines)


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """A list that gets what is not finite, as it appears: outputs of modules, then gradients of parameters."""
    found: list[str] = []

    def output(name: str, value: object) -> None:
        tensors = value if isinstance(value, tuple | list) else (value,)
        if any(isinstance(t, Tensor) and t.is_floating_point() and not t.isfinite().all() for t in tensors):
            found.append(f"the output of {name}")

    def gradient(name: str, parameter: Tensor) -> None:
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            found.append(f"the gradient of {name}")

    handles = [
        module.register_forward_hook(lambda _m, _i, value, name=name: output(name, value))
        for name, module in model.named_modules()
        if name
    ]
    handles += [
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: gradient(name, p))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _not_finite(model: nn.Module) -> list[str]:
    return [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]


def _loader(trainer: Trainer) -> PlanLoader:
    loader = trainer.train_dataloader
    assert isinstance(loader, PlanLoader), f"found {type(loader).__name__}, expected the planned rows of training"
    return loader


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")

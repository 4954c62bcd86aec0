"""A step whose loss or gradient is not finite updates nothing; what happens then is for the policy to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from theworld.training.checkpoint_contents import trained_weights
from theworld.training.checkpoints.callback import CrashSafeCheckpoint
from theworld.training.events import record
from theworld.training.module import TheWorldModule
from theworld.training.nonfinite.dump import MicroBatch, StepDump, generator_states, write_dump
from theworld.training.nonfinite.look import Look, can_skip_by_itself, look_at
from theworld.types import Batch


@dataclass
class _Step:
    """What the host knows of the step that is being made."""

    step: int
    epoch: int
    generators: dict[str, Tensor]
    ids: list[tuple[str, ...]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of the parameters that have a gradient


class NonFiniteGuard(Callback):
    """Keeps a loss or gradient that is not finite, on any rank, from reaching the weights of any.

    The policy is `stop`: end the run with an error. `skip`: go on with the next step; weights and optimizer stay bit
    for bit as they were, and the step counts as made. `rollback`: take weights and optimizer from the newest
    checkpoint of this run that verifies and go on with the next step; data and step numbers do not go back, so the
    samples since that checkpoint are not seen again. Every policy first writes
    `<trainer.default_root_dir>/nonfinite/step=<step>`, from which `theworld replay` makes the step again, and one event
    `nonfinite`.

    All ranks agree on the device before the update. PyTorch's fused AdamW, the default on a GPU, leaves the update out
    by itself, and the host reads the answer one step later, without waiting for work it has just given; before the next
    update and before a checkpoint is written the answer is known. With other optimizers, over shards, and for
    `rollback`, the host reads it in each step.

    Args:
        policy: See above.
        max_incidents: How many steps may be skipped or rolled back in a run before it is stopped after all.
        save_weights: Write what some stage trains beside the step, so that replaying needs no checkpoint. Not over
            shards.

    Attributes:
        incidents: Steps that were skipped or rolled back so far. Part of the checkpoint.
    """

    def __init__(
        self,
        *,
        policy: Literal["stop", "skip", "rollback"] = "stop",
        max_incidents: int = 10,
        save_weights: bool = True,
    ) -> None:
        if policy not in ("stop", "skip", "rollback"):
            raise ValueError(f"found policy={policy!r}, expected stop, skip or rollback")
        if max_incidents < 0:
            raise ValueError(f"found max_incidents={max_incidents}, expected 0 or more")
        self.policy = policy
        self.max_incidents = max_incidents
        self.save_weights = save_weights
        self.incidents: list[int] = []
        self._names: dict[Tensor, str] = {}
        self._now: _Step | None = None
        self._unread: tuple[_Step, Look] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Learn the parameters' names."""
        self._names = {parameter: name for name, parameter in pl_module.world.named_parameters()}
        self._now = self._unread = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        """Note whose turn it is."""
        if self._now is None:
            self._now = _Step(trainer.global_step, trainer.current_epoch, generator_states())
        self._now.ids.append(batch.ids)

    def on_before_backward(self, trainer: Trainer, pl_module: TheWorldModule, loss: Tensor) -> None:
        """Note the loss."""
        assert self._now is not None, "a micro-batch begins before its loss is there"
        self._now.losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TheWorldModule, optimizer: Optimizer) -> None:
        """Look, and leave the update out if need be."""
        self._settle(trainer, pl_module)
        step, self._now = self._now, None
        assert step is not None, "a step has micro-batches"
        with_gradient = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        step.names = [self._names[parameter] for parameter in with_gradient]
        look, is_bad = look_at(step.losses, [parameter.grad for parameter in with_gradient])
        self._unread = step, look
        if self.policy != "rollback" and can_skip_by_itself(optimizer):
            vars(optimizer)["found_inf"] = is_bad  # where PyTorch's own gradient scaler leaves it
        elif self._settle(trainer, pl_module):
            for parameter in with_gradient:
                parameter.grad = None  # the optimizer passes over it, and so does clipping

    def on_save_checkpoint(self, trainer: Trainer, pl_module: TheWorldModule, checkpoint: dict[str, object]) -> None:
        """No checkpoint goes on after a step that the run is to stop at."""
        self._settle(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """The last step."""
        self._settle(trainer, pl_module)

    def state_dict(self) -> dict[str, list[int]]:
        """The incidents so far."""
        return {"incidents": list(self.incidents)}

    def load_state_dict(self, state_dict: dict[str, list[int]]) -> None:
        """Go on counting."""
        self.incidents = list(state_dict["incidents"])

    def _settle(self, trainer: Trainer, pl_module: TheWorldModule) -> bool:
        """Read the look that is still unread, and act; whether its step was bad. The same on all ranks."""
        if self._unread is None:
            return False
        (step, look), self._unread = self._unread, None
        if not look.wait():
            return False
        folder = self._dump(step, look, trainer, pl_module)
        is_over = len(self.incidents) >= self.max_incidents
        policy = "stop" if is_over else self.policy
        where, ranks = _where(step, look), _ranks_with(look, trainer)
        checkpoint = self._roll_back(trainer) if policy == "rollback" else None
        if trainer.is_global_zero:
            facts = {"policy": policy, "ranks": ranks, "found": where, "dump": folder, "checkpoint": checkpoint}
            record(trainer.default_root_dir, "nonfinite", step=step.step, epoch=step.epoch, **facts)
        message = f"optimizer step {step.step}: found {where}, on the ranks {ranks}, expected finite numbers; {folder}"
        if policy == "stop":
            limit = f" This is the incident after max_incidents={self.max_incidents}." if self.policy != "stop" else ""
            raise RuntimeError(
                f"{message} has the step, `theworld replay {folder} --config …` makes it again. The weights were not "
                f"updated.{limit} Lower the learning rate, repair the samples, or set nonfinite.policy=skip"
            )
        self.incidents.append(step.step)
        rank_zero_warn(f"{message} has the step. " + ("Skipped" if checkpoint is None else f"Back to {checkpoint}"))
        return True

    def _dump(self, step: _Step, look: Look, trainer: Trainer, pl_module: TheWorldModule) -> Path:
        folder = Path(trainer.default_root_dir) / "nonfinite" / f"step={step.step}"
        weights = trained_weights(pl_module.world, pl_module.schedule.groups, prefix="")
        is_whole = not any(isinstance(tensor, DTensor) for tensor in weights.values())
        checkpoint = _newest(trainer)
        config = Path(trainer.log_dir or trainer.default_root_dir) / "config.yaml"
        batches = zip(step.ids, look.losses, strict=True)
        dump = StepDump(
            step=step.step,
            epoch=step.epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            micro_batches=tuple(MicroBatch(ids, str(loss)) for ids, loss in batches),
            gradients=tuple(step.names[place] for place in look.bad_gradients),
            policy=self.policy,
            checkpoint=None if checkpoint is None else str(checkpoint),
            config=str(config) if config.exists() else None,
            has_weights=self.save_weights and is_whole,
        )
        kept = weights if dump.has_weights and trainer.is_global_zero else None
        write_dump(folder, dump, generators=step.generators, weights=kept)
        trainer.strategy.barrier("nonfinite")
        return folder

    def _roll_back(self, trainer: Trainer) -> Path:
        path = _newest(trainer)
        if path is None:
            raise RuntimeError(
                "found no checkpoint of this run that verifies, expected one to roll back to; save more often, or set "
                "nonfinite.policy=skip"
            )
        checkpoint = trainer.strategy.load_checkpoint(path)
        trainer.strategy.load_model_state_dict(checkpoint, strict=False)
        trainer.strategy.load_optimizer_state_dict(checkpoint)
        return path


def _newest(trainer: Trainer) -> Path | None:
    """The newest checkpoint of this run that verifies, as the main process finds it; None if none does."""
    saver = next((c for c in trainer.checkpoint_callbacks if isinstance(c, CrashSafeCheckpoint)), None)
    found = saver.newest_of_this_run(trainer) if trainer.is_global_zero and saver is not None else None
    return trainer.strategy.broadcast(found)


def _where(step: _Step, look: Look) -> str:
    """In words, as this rank sees it."""
    bad = [number for number, loss in enumerate(look.losses) if not torch.tensor(loss).isfinite()]
    parts = [f"a loss of {look.losses[number]} in micro-batch {number}" for number in bad[:1]]
    gradients: Sequence[int] = look.bad_gradients
    if gradients:
        parts.append(f"a gradient that is not finite in {len(gradients)} parameters ({step.names[gradients[0]]})")
    return " and ".join(parts) or "numbers that are not finite on another rank"


def _ranks_with(look: Look, trainer: Trainer) -> list[int]:
    """Ranks on which something is not finite."""
    is_own = not bool(look.values.isfinite().all())
    if trainer.world_size == 1:
        return [0]
    everywhere = [False] * trainer.world_size
    distributed.all_gather_object(everywhere, is_own)
    return [rank for rank, is_bad in enumerate(everywhere) if is_bad]

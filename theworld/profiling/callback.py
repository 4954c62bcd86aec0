"""Watches `theworld fit` from outside: through Lightning's hooks and its own notes of what it is doing.

Lightning names every action of its loop for whoever is `trainer.profiler`. That is where the places outside of the
model come from: waiting for data, the transfer, every callback, clipping, the optimizer.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from theworld.models.flops import geometry_of, useful_flops
from theworld.profiling.places import GLUE, HEAD, Place, Places
from theworld.profiling.reports.make import make_report, parameter_counts, throughput
from theworld.profiling.reports.write import summary, write_report
from theworld.profiling.timing.segments import mean_seconds
from theworld.profiling.watch import Plan, Watch
from theworld.training.callbacks.throughput import Counts
from theworld.training.module import TheWorldModule
from theworld.types import Batch

ACTIONS = (
    ("*train_dataloader_next", Place("data", "wait for the next batch")),
    ("*.on_before_batch_transfer", Place("data", "plan of live rows")),
    ("*batch_to_device", Place("data", "transfer")),
    ("[[]Strategy]*.training_step", Place("forward", GLUE)),
    ("[[]Strategy]*.backward", Place("backward", HEAD)),
    ("[[]LightningModule]*.optimizer_step", Place("optimizer", "step")),
    ("[[]LightningModule]*.optimizer_zero_grad", Place("optimizer", "clear gradients")),
    ("[[]LightningModule]*.configure_gradient_clipping", Place("optimizer", "clip gradients")),
    ("[[]Callback]*", Place("loop", "callbacks")),
)
"""Pattern of an action's name → its place; the first match wins, and an action without one is where it is called."""


class LoopPlaces(Profiler):
    """Enters and leaves the places of the loop.

    Args:
        places: Noticed only while they are attached.
    """

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places
        self._actions: list[str] = []

    def start(self, action_name: str) -> None:
        """An action begins."""
        if not self._places.is_attached:
            return
        place = next((place for pattern, place in ACTIONS if fnmatch(action_name, pattern)), None)
        if place is not None:
            self._actions.append(action_name)
            self._places.enter(place)

    def stop(self, action_name: str) -> None:
        """It ends; one that began before the places were attached is none of them."""
        if self._actions and self._actions[-1] == action_name:
            self._actions.pop()
            self._places.leave()

    def forget(self) -> None:
        """Places are attached anew: nothing is entered."""
        self._actions.clear()


class Profile(Callback):
    """Profiles the first stage of a run and writes a report; the run ends with the last step that is measured.

    Writes `report.json`, `report.md`, `memory.png`, `modules.png`, `operations.png`, `trace.json.gz` (for
    chrome://tracing or Perfetto), `tensorboard/` and, on CUDA, `memory_snapshot.pickle` (for pytorch.org/memory_viz).

    Args:
        output: Folder for all of it.
        warmup_steps: Optimizer steps before anything is measured; layers are compiled in them.
        active_steps: Optimizer steps that are timed without any tool; as many again are timed by module.
        traced_steps: Optimizer steps under `torch.profiler`.
        record_stacks: Record where in the source blocks and operations come from; makes the files large.
    """

    def __init__(
        self,
        *,
        output: str = "outputs/profile",
        warmup_steps: int = 5,
        active_steps: int = 10,
        traced_steps: int = 2,
        record_stacks: bool = False,
    ) -> None:
        self.output = Path(output)
        self.plan = Plan(warmup_steps=warmup_steps, active_steps=active_steps, traced_steps=traced_steps)
        self.record_stacks = record_stacks
        self._watch: Watch | None = None
        self._loop: LoopPlaces | None = None
        self._at_boundary = True
        self._counts = Counts()
        self._losses: list[list[Tensor]] = []

    @property
    def watch(self) -> Watch:
        """What observes the run, once it has begun."""
        assert self._watch is not None, "the run has not begun"
        return self._watch

    def on_fit_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Refuse what cannot be profiled."""
        if trainer.world_size != 1:
            raise ValueError(
                f"found {trainer.world_size} processes, expected 1: a profile is one device's; set trainer.devices=1"
            )
        first = pl_module.schedule.boundaries[0]
        if first < self.plan.total:
            raise ValueError(
                f"found a first stage of {first} steps, expected at least the {self.plan.total} that are profiled; set "
                f"model.stages.{pl_module.schedule.names[0]}.max_steps, or fewer profile.active_steps"
            )

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Take the place of Lightning's profiler."""
        self._watch = Watch(pl_module.world, pl_module.device, self.plan, self.output, stacks=self.record_stacks)
        self._loop = trainer.profiler = LoopPlaces(self._watch.places)

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        """Begin a step with its first micro-batch."""
        assert self._loop is not None, "the run has not begun"
        if not self._at_boundary:
            self.watch.look(trainer.optimizers[0], batch)
            return
        self._at_boundary = False
        self._loop.forget()
        self.watch.begin_step(trainer.optimizers[0], batch)
        self._losses.append([])

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: TheWorldModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """All gradients are there."""
        self.watch.look(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TheWorldModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Count what a timed step held, and note the loss without reading it."""
        assert isinstance(outputs, dict), "a training step gives its loss by name"
        self._losses[-1].append(outputs["loss"].detach())  # computed with, or read, in the timed steps by nobody
        self._at_boundary = pl_module.steps_after(batch_idx)
        if self.watch.kind != "plain":
            return
        geometry, config = geometry_of(batch), pl_module.world.config
        trained = pl_module.schedule.stage(0).learning_rates.trained()
        self._counts += Counts(
            steps=int(self._at_boundary),
            tokens=sum(geometry.document_lengths),
            capacity=batch.document_ids.numel(),
            targets=geometry.targets,
            samples=len(batch.ids),
            flops=useful_flops(config, geometry, trained).total,
        )

    def on_train_end(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Write the report."""
        if self.watch.kind != "measured":
            raise ValueError(
                f"found the run at its end after {self.watch.step + 1} steps, expected {self.plan.total}; the data has "
                "too few, or trainer.max_steps is too small"
            )
        found, model = self.watch.finish(), pl_module.world
        scaled = trainer.accumulate_grad_batches  # by the module, because Lightning divides by it
        report = make_report(
            found,
            name=self.output.name,
            parameters=parameter_counts(model),
            run=self._facts(trainer, pl_module),
            throughput=throughput(self._counts, mean_seconds(found.plain), pl_module.device),
            losses=[sum(float(loss) for loss in losses) / scaled for losses in self._losses],
        )
        write_report(report, self.output)
        pl_module.print(f"{summary(report)}\nReport: {self.output / 'report.md'}")

    def _facts(self, trainer: Trainer, pl_module: TheWorldModule) -> dict[str, str | int | list[str]]:
        stage = pl_module.schedule.stage(0)
        return {
            "base": pl_module.base,
            "stage": pl_module.schedule.names[0],
            "trains": list(stage.learning_rates.trained()),
            "precision": str(trainer.precision),
            "optimizer": pl_module.optimizer_choice,
            "recompute": stage.recompute,
            "attention_backend": pl_module.attention_backend,
            "compiled_layers": str(pl_module.compile_layers),
            "micro_batches_per_step": trainer.accumulate_grad_batches,
            "warmup_steps": self.plan.warmup_steps,
            "active_steps": self.plan.active_steps,
            "traced_steps": self.plan.traced_steps,
        }

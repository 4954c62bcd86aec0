"""The plan of a step is the step: to the byte of what really is there, in Lightning's own order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from tests.profiling.plan.steps import ALL, config_of, module_of, row_of, tracked, with_weights, without_weights
from tests.tiny import QUIET_TRAINER
from theworld.models.parameter_groups import parameter_groups
from theworld.profiling.plan.live_memory import LiveMemory
from theworld.profiling.plan.training_step import (
    GRADIENTS,
    LOGITS,
    OPTIMIZER,
    StepSettings,
    tensors_of,
    track_steps,
)
from theworld.training.callbacks.stage_schedule import StageSchedule

CASES = {
    "projection": ({"world_projector": 1e-3}, {}, {}),
    "all": (ALL, {}, {"accumulate": 2, "clip": 1.0}),
    "bf16 with masters": (ALL, {"dtype": "bfloat16"}, {"precision": "bf16-mixed"}),
    "recomputed": (ALL, {"recompute": "full", "attention_backend": "flash"}, {}),
}
SLOW = ("projection", "bf16 with masters", "recomputed")


@pytest.mark.parametrize("case", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_planned_is_tracked_to_the_byte(case: str) -> None:
    rates, settings, more = CASES[case]
    config = config_of()
    real = tracked(with_weights(module_of(rates, **settings), config), row_of(config), **more)
    planned = tracked(without_weights(module_of(rates, **settings), config), row_of(config), **more)
    assert planned == real
    assert {"forward", "backward", "optimizer"} == set(planned.peaks)


def test_categories_sum_to_the_peak_and_say_what_they_should() -> None:
    config, module = config_of(), module_of(ALL)
    found = tracked(without_weights(module, config), row_of(config))
    for peak in found.peaks.values():
        assert sum(peak.categories.values()) == peak.bytes
    numbers = sum(p.numel() for p in module.world.parameters() if p.requires_grad)
    end = found.peaks["optimizer"].categories
    assert end[GRADIENTS] == 4 * numbers == found.gradient_bytes
    steps = 4 * len([p for p in module.world.parameters() if p.requires_grad])
    assert end[OPTIMIZER] == 8 * numbers + steps
    weights = sum(size for name, size in end.items() if name.startswith("weights"))
    assert weights == sum(t.nbytes for t in [*module.world.parameters(), *module.world.buffers()])
    assert found.peaks["forward"].categories[LOGITS] > 20 * 256 * 4  # targets × vocabulary


def test_a_category_left_out_is_noticed() -> None:
    """The control of the test to the byte: a counter that does not see the optimizer's state finds another peak."""

    class Blind(LiveMemory):
        def rename(self, tensor: torch.Tensor, category: str) -> None:
            super().rename(tensor, category)
            if category == OPTIMIZER:
                key = tensor.untyped_storage()._cdata
                self.give(*self._known[key])
                self._known[key] = 0, category

    config = config_of()
    real = tracked(with_weights(module_of(ALL), config), row_of(config))
    blind = tracked(without_weights(module_of(ALL), config), row_of(config), memory=Blind(block_bytes=1))
    assert blind.peak.bytes < real.peak.bytes


def test_lightning_makes_the_step_in_this_order(tmp_path) -> None:
    """Gradients end with their step, as the module has it; what Lightning logs is under 0.1 %."""
    memory = LiveMemory(block_bytes=1)

    class Forget(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            memory.phase = "forward"
            if trainer.global_step == 1:
                memory.reset()

        def on_before_backward(self, trainer, pl_module, loss) -> None:
            memory.phase = "backward"

    config, module = config_of(), module_of(ALL)
    batch = row_of(config)
    unplanned = replace(batch, live_rows=None)  # the module plans them
    with_weights(module, config)
    ours = tracked(with_weights(module_of(ALL), config), batch)
    trainer = Trainer(**QUIET_TRAINER, default_root_dir=tmp_path, max_epochs=-1, callbacks=[Forget(), StageSchedule()])
    with memory:
        for tensor in [*module.world.parameters(), *module.world.buffers(), *tensors_of(unplanned)]:
            memory.hold(tensor)
        trainer.fit(module, train_dataloaders=DataLoader([unplanned, unplanned], batch_size=None))
    for phase in ("forward", "backward"):
        assert memory.peaks[phase].bytes == pytest.approx(ours.peaks[phase].bytes, rel=0.001)
    gradients = sum(p.numel() * 4 for p in module.world.parameters() if p.requires_grad)
    assert gradients > 0.05 * ours.peak.bytes  # or their order would not show


@pytest.mark.slow
def test_state_of_what_an_earlier_stage_trained_is_kept() -> None:
    config, rates = config_of(), {"world_projector": 1e-3, "vision": 1e-3}

    def found(before: tuple[str, ...]) -> int:
        module = without_weights(module_of(rates), config)
        late = module_of({"world_projector": 1e-3}).schedule.stages[0]
        settings = StepSettings(precision="32-true", fused=False)
        memory = LiveMemory(block_bytes=1)
        return track_steps(module, late, row_of(config), memory, settings, trained_before=before).between_steps

    vision = parameter_groups(without_weights(module_of(rates), config).world)["vision"]
    assert found(("vision",)) - found(()) == sum(8 * p.numel() + 4 for _, p in vision)

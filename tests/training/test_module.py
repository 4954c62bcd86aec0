"""The module over the real trainer: what trains, at which rate, on which loss, and whether a resume is exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.training.conftest import one_stage
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.training.module import TheWorldModule
from theworld.training.optimizer_rules import set_trainable

MakeAny = Callable[..., object]


class Recorder(Callback):
    """What each optimizer step saw: rates, what trains, gradients and the logged loss."""

    def __init__(self) -> None:
        self.rates: list[dict[str, float]] = []
        self.trains: list[set[str]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.losses: list[float] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append({g["group"]: g["lr"] for g in optimizer.param_groups})
        groups = parameter_groups(pl_module.world)
        self.trains.append({g for g, ps in groups.items() if all(p.requires_grad for _, p in ps)})
        named = pl_module.world.named_parameters()
        self.gradients.append({n: p.grad.clone() for n, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.steps_after(batch_idx):
            self.losses.append(float(trainer.callback_metrics["train/loss"]))
            self.weights.append(copy(pl_module))


def copy(module: TheWorldModule) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.world.named_parameters()}


def fit(
    make_trainer: MakeAny, module: TheWorldModule, data: object, *callbacks: Callback, **changes: object
) -> Recorder:
    recorder = Recorder()
    ckpt_path = changes.pop("ckpt_path", None)
    trainer = make_trainer(recorder, *callbacks, **changes)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return recorder


def test_stages_change_what_trains_at_their_boundaries(make_module, make_data, make_trainer):
    module = make_module()
    recorder = fit(make_trainer, module, make_data())
    assert recorder.trains == [
        *[{"world_projector"}] * 2,
        *[{"world_projector", "vision"}] * 2,
        *[{"world_projector", "language"}] * 3,
    ]
    expected = [{g: module.schedule.learning_rate(g, step) for g in module.schedule.groups} for step in range(7)]
    assert recorder.rates == expected
    assert expected[1]["vision"] == 0.0
    assert expected[2]["vision"] == 1e-3

    groups = {g: [n for n, _ in ps] for g, ps in parameter_groups(module.world).items()}
    for group, names in groups.items():
        moved = [
            any(not torch.equal(before[n], after[n]) for n in names)
            for before, after in zip(recorder.weights, recorder.weights[1:], strict=False)
        ]
        assert moved == [group in trains for trains in recorder.trains[1:]], group


def test_the_optimizer_keeps_no_state_of_what_never_trained(make_module, make_data, make_trainer):
    module = make_module()
    seen = {}

    class States(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            names = {p: n for n, p in pl_module.world.named_parameters()}
            seen[trainer.global_step] = {
                names[p].split(".")[1]: int(s["step"]) for p, s in trainer.optimizers[0].state.items()
            }

    fit(make_trainer, module, make_data(), States())
    assert seen[2] == {"projector": 2}
    assert seen[4].keys() == {"projector", "model"}
    assert seen[4] == {"projector": 4, "model": 2}  # the group unfrozen at step 2 counts its own steps
    assert seen[7]["projector"] == 7


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_the_gradient_is_that_of_the_whole_step_however_it_is_split(
    base, make_module, make_data, make_trainer, accumulate
):
    """One step of 1, 2 or 4 packed rows: by Lightning's accumulation, and at once in plain torch."""
    stages = one_stage(1, world_projector=1e-3, language=1e-3)
    module, data = make_module(stages=stages), make_data(micro_batches_per_step=accumulate)
    recorder = fit(make_trainer, module, data, accumulate_grad_batches=accumulate)

    reference, again = make_module(stages=stages), make_data(micro_batches_per_step=accumulate)
    reference.model = TheWorld.from_pretrained(base, world_image_size=16, dtype=torch.float32)
    set_trainable(reference.world, reference.schedule.groups)
    again.setup("fit")
    batches = [batch for batch, _ in zip(again.train_dataloader(), range(accumulate), strict=False)]
    total = sum(batch.num_target_tokens for batch in batches)
    assert {batch.step_target_tokens for batch in batches} == {total}
    loss = sum(reference(batch).loss_sum for batch in batches) / total
    loss.backward()
    assert recorder.losses == [pytest.approx(loss.item(), rel=1e-6)]
    expected = {n: p.grad for n, p in reference.world.named_parameters() if p.grad is not None}
    assert recorder.gradients[0].keys() == expected.keys()
    for name, gradient in recorder.gradients[0].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7)


def test_micro_batches_weigh_by_their_targets_not_alike(make_module, make_data):
    """Positive control of the test above: the mean of micro-batch means is another number."""
    data = make_data(micro_batches_per_step=4)
    data.setup("fit")
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(4), strict=False)]
    counts = [batch.num_target_tokens for batch in batches]
    assert len(set(counts)) > 1


def test_a_resumed_run_is_bit_identical(make_module, make_data, make_trainer, tmp_path):
    """Saved after every step: within a stage and an epoch, at the end of a stage (2, 4), of an epoch (3, 6)."""
    settings = {"accumulate_grad_batches": 2}
    saver = ModelCheckpoint(dirpath=tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole_module, data = make_module(), make_data(micro_batches_per_step=2)
    whole = fit(make_trainer, whole_module, data, saver, **settings, enable_checkpointing=True)
    assert len(data.train_dataloader()) == 6  # three steps an epoch
    expected = copy(whole_module)
    for step in range(1, 7):
        module = make_module()
        torch.manual_seed(123)  # the new projector would differ, were it not loaded
        ckpt_path = tmp_path / "saved" / f"step={step}.ckpt"
        resumed = fit(make_trainer, module, make_data(micro_batches_per_step=2), **settings, ckpt_path=ckpt_path)
        assert resumed.losses == whole.losses[step:]
        assert resumed.rates == whole.rates[step:]
        assert resumed.trains == whole.trains[step:]
        assert all(torch.equal(weight, expected[name]) for name, weight in copy(module).items())


def test_a_finished_run_does_not_train_on(make_module, make_data, make_trainer, tmp_path):
    saver = ModelCheckpoint(dirpath=tmp_path, filename="last", every_n_train_steps=7)
    fit(make_trainer, make_module(), make_data(), saver, enable_checkpointing=True)
    resumed = fit(make_trainer, make_module(), make_data(), ckpt_path=tmp_path / "last.ckpt")
    assert resumed.losses == []


def test_what_trains_is_float32_and_the_rest_stays_bfloat16(make_module, make_data, make_trainer):
    module = make_module(dtype="bfloat16")
    fit(make_trainer, module, make_data(), precision="bf16-mixed")
    types = {g: {p.dtype for _, p in ps} for g, ps in parameter_groups(module.world).items()}
    assert types == {
        "world_projector": {torch.float32},
        "world_encoder": {torch.bfloat16},
        "vision": {torch.float32},
        "language": {torch.float32},
    }


@pytest.mark.parametrize(("dtype", "precision"), [("bfloat16", "32-true"), ("float32", "bf16-true")])
def test_a_precision_that_would_lose_the_master_weights_is_refused(
    make_module, make_data, make_trainer, dtype, precision
):
    with pytest.raises(ValueError, match=f"found trainer.precision={precision} with weights loaded as torch.{dtype}"):
        fit(make_trainer, make_module(dtype=dtype), make_data(), precision=precision)


def test_gradient_clipping_works_through_the_trainer(make_module, make_data, make_trainer):
    stages = one_stage(1, world_projector=1e-3, language=1e-3)
    free = fit(make_trainer, make_module(stages=stages), make_data()).gradients[0]
    norm = torch.stack([g.norm() for g in free.values()]).norm()
    clipped, logged = [], []

    class Clipped(Callback):
        def on_train_batch_end(self, trainer, *_):
            logged.append(float(trainer.callback_metrics["train/gradient_norm"]))

        def on_train_start(self, trainer, pl_module):
            trained = list(pl_module.world.parameters())
            trainer.optimizers[0].register_step_post_hook(
                lambda *_: clipped.extend(p.grad.norm() for p in trained if p.grad is not None)
            )

    options = {"gradient_clip_val": float(norm) / 4, "log_every_n_steps": 1}
    fit(make_trainer, make_module(stages=stages), make_data(), Clipped(), **options)
    assert float(torch.stack(clipped).norm()) == pytest.approx(float(norm) / 4, rel=1e-4)
    assert logged == [pytest.approx(float(norm), rel=1e-4)]  # what it was before


def test_no_gradient_outlives_its_step(make_module, make_data, make_trainer):
    """They would lie beside the activations of the next forward pass; between micro-batches they have to stay."""
    seen = []

    class Seen(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(sum(p.grad is not None for p in pl_module.world.parameters()))

    module = make_module(stages=one_stage(2, world_projector=1e-3))
    fit(make_trainer, module, make_data(micro_batches_per_step=2), Seen(), accumulate_grad_batches=2)
    trained = len(list(module.world.cosmos_encoder.projector.parameters()))
    assert seen == [trained, 0, trained, 0]


def test_data_with_other_world_tokens_is_refused(make_module, make_data, make_trainer):
    with pytest.raises(
        ValueError, match=r"found \(world tokens, world token id\) = \(5, \d+\) in the data's processor"
    ):
        fit(make_trainer, make_module(), make_data(num_world_tokens=5))
    with pytest.raises(ValueError, match=r"found \(world tokens, world token id\) = \(0, None\)"):
        fit(make_trainer, make_module(), make_data(enable_world=False))


def test_without_the_world_branch_the_same_loop_trains_gemma(make_module, make_data, make_trainer):
    module = make_module(enable_world=False, stages=one_stage(2, language=1e-3))
    recorder = fit(make_trainer, module, make_data(enable_world=False))
    assert recorder.trains == [{"language"}] * 2
    with pytest.raises(ValueError, match="a model with enable_world=False has no world groups"):
        fit(make_trainer, make_module(enable_world=False), make_data(enable_world=False))

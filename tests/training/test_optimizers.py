"""The three optimizers: what rounding does to small updates, and that they run, clip, save and resume as AdamW does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torchao.optim.subclass_8bit import OptimState8bit

from tests.training.conftest import one_stage
from theworld.models.parameter_groups import parameter_groups
from theworld.training.optimizer_rules import OptimizerGroup
from theworld.training.optimizers import check_optimizer, make_optimizer, rounding_of_step, set_learning_rates

pytestmark = pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")  # some runs here stop early
LOW = ("adamw_bf16", "adamw_8bit")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def not_compiled(request):
    """torchao compiles a kernel for every shape, in seconds each; the same code runs here as it is written."""
    with torch.compiler.set_stance("default" if "compiled" in request.node.name else "force_eager"):
        yield


def one_group(weight: nn.Parameter, *, weight_decay: float = 0.0) -> list[OptimizerGroup]:
    return [OptimizerGroup(params=[("weight", weight)], group="language", weight_decay=weight_decay)]


START = torch.linspace(0.5, 2.0, 4096)


def descend(choice: str, *, steps: int = 50, rate: float = 2e-5, seed: int = 0) -> Tensor:
    """Weights after `steps` of a loss that pulls half of them up and half down; float64[4096].

    A step moves a weight by `rate`, a hundredth or less of the distance between two neighbours in bfloat16.
    """
    weight = nn.Parameter(START.clone() if choice == "adamw" else START.bfloat16())
    pull = torch.where(torch.arange(4096) % 2 == 0, 1.0, -1.0).to(weight.dtype)
    if choice == "plain":
        optimizer = torch.optim.AdamW([{"params": [weight], "group": "language"}], lr=0.0, weight_decay=0.0)
    else:
        optimizer = make_optimizer(choice, one_group(weight), betas=(0.9, 0.999))
    for step in range(steps):
        weight.grad = pull.clone()
        set_learning_rates(optimizer, {"language": rate})
        with rounding_of_step(choice, seed + step, CPU):
            optimizer.step()
    return weight.detach().double() * pull.double()


@pytest.mark.parametrize("choice", LOW)
def test_small_updates_survive_on_average(choice):
    """Fifty steps of 2e-5: in float32 all weights move by 1e-3. In plain bfloat16 none does (the positive control)."""
    start = START.bfloat16().double() * torch.where(torch.arange(4096) % 2 == 0, 1.0, -1.0)
    truth = (descend("adamw") - START.double() * torch.where(torch.arange(4096) % 2 == 0, 1.0, -1.0)).mean()
    assert truth == pytest.approx(-1e-3, rel=0.01)
    moved = (descend(choice) - start).mean()
    assert (descend("plain") - start).mean() == 0.0
    assert moved == pytest.approx(float(truth), rel=0.15)
    # Averaged over runs, every weight comes closer to where float32 takes it than where it started from.
    ends = torch.stack([descend(choice, seed=1000 * run) for run in range(6)]).mean(0)
    reference = start + truth
    assert (ends - reference).mean().abs() < 0.1 * (start - reference).mean().abs()


@pytest.mark.slow
@pytest.mark.parametrize("choice", LOW)
def test_compiled_steps_are_compiled_once_whatever_the_rate(choice):
    """The real thing, with a C++ compiler: any rates share a kernel, and the mean is right."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    moved = (descend(choice) - descend("adamw", steps=0)).mean()
    assert moved == pytest.approx(-1e-3, rel=0.15)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    descend(choice, rate=3e-5, steps=3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_random_numbers_are_those_of_the_step():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    drawn = []
    for step in (4, 5, 4):
        with rounding_of_step("adamw_bf16", step, CPU):
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(torch.rand(3), expected)  # they go on as if nothing had been drawn
    with rounding_of_step("adamw", 4, CPU):
        assert not torch.equal(torch.rand(3), drawn[0])


class Curve(Callback):
    """Losses of the optimizer steps, the norm of the gradients that each used, and moments that are 8-bit."""

    def __init__(self):
        self.losses, self.norms, self.low = [], [], 0

    def on_train_start(self, trainer, pl_module):
        states = trainer.optimizers[0].state.values()
        self.low = sum(isinstance(state["exp_avg"], OptimState8bit) for state in states)
        trained = list(pl_module.world.parameters())

        def note(*_: object) -> None:
            grads = [p.grad.float().norm() for p in trained if p.grad is not None]
            self.norms.append(float(torch.stack(grads).norm()))

        trainer.optimizers[0].register_step_post_hook(note)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


@pytest.fixture
def fit(make_module, make_data, make_trainer):
    """Train from bfloat16 weights; returns the module and the curve."""

    def run(choice: str, *callbacks: Callback, stages=None, ckpt_path: Path | None = None, **changes: object):
        module = make_module(optimizer=choice, dtype="bfloat16", **({"stages": stages} if stages else {}))
        curve = Curve()
        trainer = make_trainer(curve, *callbacks, precision="bf16-mixed", **changes)
        trainer.fit(module, datamodule=make_data(), ckpt_path=ckpt_path)
        return module, curve

    return run


def test_the_loss_curves_are_that_of_float32_masters(fit):
    """Twenty steps of the tiny model, all of the language model and the projector, clipped."""
    stages = one_stage(20, world_projector=1e-2, language=1e-2)
    _, reference = fit("adamw", stages=stages, gradient_clip_val=1.0)
    fallen = reference.losses[0] - reference.losses[-1]
    assert fallen > 1.0  # nats: there is a curve to follow
    for choice in LOW:
        module, curve = fit(choice, stages=stages, gradient_clip_val=1.0)
        assert {p.dtype for p in module.world.parameters()} == {torch.bfloat16}
        ours, theirs = torch.tensor(curve.losses), torch.tensor(reference.losses)
        assert (ours - theirs).abs().mean() < 0.05 * fallen, choice
        assert max(curve.norms) < 1.02


def test_float32_weights_with_8_bit_moments(make_module, make_data, make_trainer):
    module = make_module(optimizer="adamw_8bit", stages=one_stage(2, language=1e-3))
    seen = {}

    class States(Callback):
        def on_train_end(self, trainer, pl_module):
            seen.update(trainer.optimizers[0].state)

    make_trainer(States()).fit(module, datamodule=make_data())
    table = module.world.get_input_embeddings().weight
    assert table.dtype == torch.float32
    for moment in (seen[table]["exp_avg"], seen[table]["exp_avg_sq"]):
        assert isinstance(moment, OptimState8bit)
        assert moment.codes.dtype == torch.uint8
        assert moment.codes.shape == table.shape


@pytest.mark.parametrize("choice", LOW)
def test_a_resumed_run_is_bit_identical(fit, choice, tmp_path):
    """Through three stages, as the command line resumes: read with `weights_only`, other random numbers before."""
    saver = ModelCheckpoint(dirpath=tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole, curve = fit(choice, saver, enable_checkpointing=True)
    for step in (1, 4, 6):
        path = tmp_path / "saved" / f"step={step}.ckpt"
        states = torch.load(path, weights_only=True)["optimizer_states"][0]["state"].values()
        assert any(isinstance(s["exp_avg"], dict) for s in states) is (choice == "adamw_8bit" and step > 4)
        assert not any(isinstance(s["exp_avg"], OptimState8bit) for s in states)  # Lightning could not load it
        torch.rand(step)
        resumed, rest = fit(choice, ckpt_path=path)
        assert rest.low == (choice == "adamw_8bit" and step > 4)  # of the embeddings, which train from step 4 on
        assert rest.losses == curve.losses[step:]
        for (name, ours), theirs in zip(resumed.world.named_parameters(), whole.world.parameters(), strict=True):
            assert torch.equal(ours, theirs), name


def test_another_seed_of_the_rounding_ends_elsewhere(fit, monkeypatch):
    """Positive control of the test above: the numbers matter."""
    stages = one_stage(2, world_projector=1e-3)
    one, _ = fit("adamw_bf16", stages=stages)
    again, _ = fit("adamw_bf16", stages=stages)

    def later(choice, step, device):
        return rounding_of_step(choice, step + 100, device)

    monkeypatch.setattr("theworld.training.optimizers.rounding_of_step", later)
    other, _ = fit("adamw_bf16", stages=stages)
    first, second, third = (dict(parameter_groups(m.world)["world_projector"]) for m in (one, again, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize(("written", "read"), [("adamw", "adamw_bf16"), ("adamw_bf16", "adamw_8bit")])
def test_a_checkpoint_of_another_optimizer_is_refused(fit, written, read, tmp_path):
    stages = one_stage(2, world_projector=1e-3)
    saver = ModelCheckpoint(dirpath=tmp_path, filename="one", every_n_train_steps=1)
    fit(written, saver, stages=stages, enable_checkpointing=True, max_steps=1)
    with pytest.raises(ValueError, match=f"found a checkpoint written with optimizer={written}, expected {read}"):
        fit(read, stages=stages, ckpt_path=tmp_path / "one.ckpt")


def test_a_fused_step_lets_lightning_clip_and_loads_what_an_unfused_one_wrote():
    weight = nn.Parameter(torch.ones(8))
    ours = make_optimizer("adamw", one_group(weight), betas=(0.9, 0.999))
    fused = torch.optim.AdamW([weight], fused=True)
    weight.grad = torch.ones(8)
    plugin = MixedPrecision("bf16-mixed", "cpu")
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):  # control
        plugin.clip_gradients(fused, 0.5)
    fused._step_supports_amp_scaling = ours._step_supports_amp_scaling
    plugin.clip_gradients(fused, 0.5)
    assert weight.grad.norm() == pytest.approx(0.5, rel=1e-4)

    ours.step()
    written = ours.state_dict()
    written["param_groups"][0]["fused"] = True  # as on a GPU
    ours.load_state_dict(written)
    assert ours.param_groups[0]["fused"] is None


def test_what_cannot_work_is_refused(make_module, monkeypatch):
    with pytest.raises(ValueError, match="found optimizer='sgd', expected one of"):
        check_optimizer("sgd", dtype=torch.float32)
    with pytest.raises(ValueError, match="found optimizer=adamw_bf16 with weights loaded as torch.float32"):
        make_module(optimizer="adamw_bf16", dtype="float32")
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    check_optimizer("adamw", dtype=torch.float32)  # needs no torchao
    for choice in LOW:
        with pytest.raises(ValueError, match=r"without torchao.*pip install 'theworld\[memory\]'"):
            check_optimizer(choice, dtype=torch.bfloat16)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
@pytest.mark.parametrize("choice", LOW)
def test_bfloat16_weights_need_autocast(make_module, make_data, make_trainer, choice, precision):
    module = make_module(optimizer=choice, dtype="bfloat16")
    with pytest.raises(ValueError, match=f"found trainer.precision={precision}.*images come in float32"):
        make_trainer(precision=precision).fit(module, datamodule=make_data())

"""What tells the world tokens of future frames apart: it begins as nothing, trains, and is kept."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.models.conftest import make_sample, packed
from tests.tiny import inputs, make_model
from theworld.models.configuration import TheWorldConfig
from theworld.models.cosmos_encoder import new_projector
from theworld.models.parameter_groups import parameter_groups
from theworld.models.projector import WorldProjector
from theworld.models.theworld import TheWorld
from theworld.training.optimizer_rules import optimizer_param_groups

STEPS, FRAMES = 2, 3
NAME = "cosmos_encoder.projector.temporal_embedding"


def projector(mode: str = "spatial", steps: int = STEPS, max_steps: int = 4) -> WorldProjector:
    torch.manual_seed(0)
    return WorldProjector(
        latent_channels=16,
        hidden_size=32,
        mode=mode,
        architecture="mlp",
        latent_cells=4,
        target_rms=2.5,
        num_world_steps=steps,
        max_world_steps=max_steps,
    )


def batch_of_frames():
    return packed([make_sample(n, text=5, answer=3, seed=i, frames=FRAMES) for i, n in enumerate("ab")], 96)


def given(batch, **settings):
    return inputs(batch, **settings) | {"world_latents": batch.world_latents}


@torch.no_grad()
@pytest.mark.parametrize("mode", ["spatial", "channel"])
def test_a_new_projector_makes_of_each_frame_what_it_makes_of_it_alone(mode: str) -> None:
    latents = torch.randn(2, 16, FRAMES, 2, 2)
    together = projector(mode)(latents)
    assert torch.equal(together, projector(mode, steps=0)(latents))
    apart = [projector(mode)(latents[:, :, f : f + 1].contiguous()) for f in range(FRAMES)]
    assert torch.equal(together, torch.cat(apart, dim=1))


@torch.no_grad()
@pytest.mark.parametrize("mode", ["spatial", "channel"])
def test_each_future_frame_gets_its_row_before_the_scale_and_the_present_none(mode: str) -> None:
    layer, latents = projector(mode), torch.randn(2, 16, FRAMES, 2, 2)
    layer.temporal_embedding.normal_(std=0.5)
    cells = latents.flatten(3).permute(0, 2, 3, 1) if mode == "spatial" else latents.flatten(3).transpose(1, 2)
    rows = [torch.zeros(32), layer.temporal_embedding[0], layer.temporal_embedding[1]]
    raw = torch.cat([layer.layers(cells[:, f]) + row for f, row in enumerate(rows)], dim=1)
    expected = raw / raw.square().mean(-1, keepdim=True).sqrt() * 2.5
    found = layer(latents)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.square().mean(-1).sqrt(), torch.full(found.shape[:2], 2.5), atol=1e-4, rtol=1e-4)


def test_one_step_of_the_optimizer_tells_frames_apart() -> None:
    torch.manual_seed(0)
    model = make_model(num_world_steps=STEPS)
    layer = model.cosmos_encoder.projector
    torch.nn.init.zeros_(layer.temporal_embedding)
    still = torch.randn(1, 16, 1, 2, 2).expand(-1, -1, FRAMES, -1, -1)

    def tokens() -> torch.Tensor:
        return model.cosmos_encoder.project(still).unflatten(1, (FRAMES, -1))  # (1, F, N, D)

    assert torch.equal(tokens()[:, 0], tokens()[:, 1])
    groups = optimizer_param_groups(model, groups=["world_projector"], weight_decay=0.1)
    optimizer = torch.optim.AdamW([group | {"lr": 1e-2} for group in groups])
    model(**given(batch_of_frames(), labels=True)).loss.backward()
    used, unused = layer.temporal_embedding.grad[:STEPS], layer.temporal_embedding.grad[STEPS:]
    assert used.abs().amax(dim=1).min() > 1e-4
    assert len(unused) == 14
    assert not unused.any()
    optimizer.step()
    assert not layer.temporal_embedding[STEPS:].any()
    found = tokens()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (found[:, one] - found[:, other]).abs().max() > 1e-3
    rms = found.square().mean(-1).sqrt()
    torch.testing.assert_close(rms, layer.target_rms.expand_as(rms), atol=1e-4, rtol=1e-4)


def test_it_belongs_to_the_projector_and_does_not_decay() -> None:
    model = make_model(num_world_steps=STEPS)
    assert NAME in [name for name, _ in parameter_groups(model)["world_projector"]]
    decayed, kept = optimizer_param_groups(model, groups=["world_projector"], weight_decay=0.1)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert NAME not in [name for name, _ in decayed["params"]]
    assert NAME in [name for name, _ in kept["params"]]


@pytest.mark.parametrize(("mode", "parameters"), [("spatial", 6_599_680), ("channel", 17_044_480)])
def test_only_future_frames_cost_parameters(mode: str, parameters: int) -> None:
    counts = []
    for steps in (0, 1, 16):
        config = TheWorldConfig.preset("gemma3-4b", world_projection_mode=mode, num_world_steps=steps)
        with torch.device("meta"):
            counts.append(sum(p.numel() for p in new_projector(config, target_rms=1.0).parameters()))
    assert counts == [parameters, parameters + 16 * 2560, parameters + 16 * 2560]


@torch.no_grad()
def test_export_round_trip(tmp_path) -> None:
    model = make_model(seed=3, num_world_steps=STEPS)
    assert model.cosmos_encoder.projector.temporal_embedding.any()
    model.save_pretrained(tmp_path)
    loaded = TheWorld.from_pretrained(tmp_path)
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    batch = batch_of_frames()
    assert torch.equal(loaded(**given(batch)).logits, model(**given(batch)).logits)
    message = "expected .*, which .* was trained with"
    for settings in ({"num_world_steps": 0}, {"num_world_steps": 3}, {"max_world_steps": 8}):
        with pytest.raises(ValueError, match=f"found {next(iter(settings))}.*{message}"):
            TheWorld.from_pretrained(tmp_path, **settings)


def test_an_export_of_one_frame_has_none_and_takes_any_limit(tmp_path) -> None:
    make_model().save_pretrained(tmp_path)
    assert NAME not in load_file(tmp_path / "model.safetensors")
    assert TheWorld.from_pretrained(tmp_path, max_world_steps=8).cosmos_encoder.projector.temporal_embedding is None
    with pytest.raises(ValueError, match="found num_world_steps=1, expected 0, which .* was trained with"):
        TheWorld.from_pretrained(tmp_path, num_world_steps=1)


def test_an_export_that_lacks_it_is_refused(tmp_path) -> None:
    make_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_world_steps": STEPS}))
    with pytest.raises(ValueError, match=rf"missing keys \['{NAME}'\]"):
        TheWorld.from_pretrained(tmp_path)

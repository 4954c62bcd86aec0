"""The formula of useful work against what runs, product by product, and at true dimensions against known figures."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import astuple, fields, replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.models.conftest import drawn_sample, filled_row, make_sample
from tests.tiny import IMAGE_TOKENS, VAE_CONFIG, gemma_config, inputs, make_model, tiny_config
from theworld.models import flops
from theworld.models.attention.sdpa import sdpa_mask
from theworld.models.configuration import TheWorldConfig
from theworld.models.cosmos_encoder import new_projector
from theworld.models.execution import set_execution
from theworld.models.flops import Geometry, Passes, attention_pairs, elementwise_bytes, geometry_of, useful_flops
from theworld.models.image_features import image_features
from theworld.models.live_rows import plan_live_rows
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.types import Sample

ATTENTION = ("attention", "vision_attention", "world_encoder_attention")
STAGES = {
    "nothing": (),
    "projection": ("world_projector",),
    "vision": ("world_projector", "vision"),
    "vision alone": ("vision",),
    "language": ("world_projector", "language"),
    "encoder": ("world_encoder",),
    "all": ("world_projector", "world_encoder", "vision", "language"),
}


@pytest.fixture(scope="module")
def model() -> TheWorld:
    """Of this file alone: what trains in it changes."""
    return make_model()


def samples_of() -> list[Sample]:
    return [make_sample(name, text=14 + 9 * i, answer=3 + i, seed=i) for i, name in enumerate("abc")]


def counted(model: TheWorld, trained: Collection[str], given: dict[str, object]) -> dict[str, dict[str, int]]:
    """What ran forward and backward: module → operator → floating-point operations."""
    for group, members in parameter_groups(model).items():
        for _, parameter in members:
            parameter.requires_grad_(group in trained)
    # The kernel that writes attention out as products: the counter knows none of the CPU's fused ones.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = model(**given).loss
        if trained:
            loss.backward()
    return {
        name: {str(operator).removeprefix("aten."): count for operator, count in operators.items()}
        for name, operators in counter.get_flop_counts().items()
    }


def dense(config: TheWorldConfig, geometry: Geometry, trained: Collection[str]) -> dict[str, Passes]:
    """The formula by part, with all pairs of the row in attention, as the reference computes them."""
    work = useful_flops(config, geometry, trained)
    parts = {field.name: getattr(work, field.name) for field in fields(work)}
    pairs = config.get_text_config().num_hidden_layers * sum(geometry.document_lengths) ** 2
    useful = attention_pairs(config, geometry)
    parts["attention"] = Passes(*(value * pairs // useful for value in astuple(parts["attention"])))
    return parts


def difference(ran: dict[str, int], parts: dict[str, Passes]) -> int:
    """Counted minus formula; attention is among the batched products (with what else PyTorch finds shorter as one)."""
    assert ran.keys() <= {"mm", "addmm", "bmm", "convolution", "convolution_backward"}
    assert ran["bmm"] >= sum(parts[name].total for name in ATTENTION) > 0
    return sum(ran.values()) - sum(part.total for part in parts.values())


@pytest.mark.parametrize("stage", STAGES)
def test_the_formula_is_what_runs(model, stage):
    batch = filled_row(samples_of())
    ran = counted(model, STAGES[stage], inputs(batch, labels=True))["Global"]
    assert difference(ran, dense(model.config, geometry_of(batch), STAGES[stage])) == 0


@pytest.mark.parametrize("stage", ["projection", "vision", "language"])
def test_given_features_cost_nothing(model, stage):
    batch = filled_row(samples_of())
    given = inputs(batch, labels=True)
    with torch.no_grad():
        given["image_features"] = image_features(model.gemma, given.pop("pixel_values"))
        given["world_latents"] = model.cosmos_encoder.vae(given.pop("world_pixel_values"))
    geometry = replace(geometry_of(batch), live_images=0, live_frames=0)
    ran = counted(model, STAGES[stage], given)["Global"] | {"convolution": 0}
    parts = dense(model.config, geometry, STAGES[stage])
    assert difference(ran, parts) == 0
    assert parts["vision"].total == parts["world_encoder"].total == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"projection_architecture": "linear"},
        {"vae_config": VAE_CONFIG | {"dim_mult": [1, 2, 3, 4], "num_res_blocks": 2, "attn_scales": [0.5]}},
        {"gemma_config": gemma_config(num_key_value_heads=1, num_hidden_layers=8)},
    ],
    ids=["linear projector", "wider encoder with attention", "other heads and layers"],
)
def test_the_formula_follows_the_config(settings):
    model, batch = make_model(**settings), filled_row(samples_of())
    ran = counted(model, STAGES["all"], inputs(batch, labels=True))["Global"]
    assert difference(ran, dense(model.config, geometry_of(batch), STAGES["all"])) == 0


def test_every_part_is_its_module(model):
    """Forward only: backward, the counter cannot tell modules apart."""
    batch = filled_row(samples_of())
    ran = counted(model, (), inputs(batch, labels=True))
    parts = dense(model.config, geometry_of(batch), ())
    modules = {
        "gemma.model.language_model": ("language", "attention"),
        "gemma.model.vision_tower": ("vision", "vision_attention"),
        "cosmos_encoder.vae": ("world_encoder", "world_encoder_attention"),
    }
    for module, (products, attention) in modules.items():
        batched = ran[f"TheWorld.{module}"].pop("bmm")
        assert (sum(ran[f"TheWorld.{module}"].values()), batched) == (parts[products].total, parts[attention].total)
    assert sum(ran["TheWorld.cosmos_encoder.projector"].values()) == parts["world_projector"].total
    assert not any(part.input_gradient or part.weight_gradient for part in parts.values())


@pytest.mark.parametrize("stage", ["projection", "language", "all"])
def test_samples_of_different_world_tokens(stage):
    """They are in the formula, and frames of as many as the model's are another number."""
    model = make_model(world_image_size=64)
    batch = filled_row(
        [drawn_sample(name, n, latents=False, seed=i) for i, (name, n) in enumerate((("a", 16), ("b", 64)))]
    )
    batch = replace(batch, world_token_counts=(16, 64))
    given = inputs(batch, labels=True) | {"world_token_counts": batch.world_token_counts}
    ran = counted(model, STAGES[stage], given)["Global"]
    geometry = geometry_of(batch)
    assert geometry.world_tokens == (16, 64)
    assert difference(ran, dense(model.config, geometry, STAGES[stage])) == 0
    assert difference(ran, dense(model.config, replace(geometry, world_tokens=()), STAGES[stage])) < 0  # control


def test_pairs_of_different_world_tokens_are_those_of_the_mask():
    config = tiny_config(world_image_size=64, bidirectional_world=True)
    batch = filled_row([drawn_sample(name, n, seed=i) for i, (name, n) in enumerate((("a", 16), ("b", 64), ("c", 4)))])
    batch = replace(batch, world_token_counts=(16, 64, 4))
    expected = 0
    for kind in config.get_text_config().layer_types:
        window = config.get_text_config().sliding_window if kind == "sliding_attention" else None
        ids = (batch.document_ids, batch.token_type_ids)
        expected += int(sdpa_mask(*ids, sliding_window=window, bidirectional_world=True).sum())
    assert attention_pairs(config, geometry_of(batch)) == expected
    assert attention_pairs(config, replace(geometry_of(batch), world_tokens=(64, 16, 1))) != expected  # control


def test_a_projector_by_channel():
    config = tiny_config(world_projection_mode="channel")
    geometry = Geometry(document_lengths=(60, 60), targets=1, frames=2, live_frames=2)
    projector = new_projector(config, target_rms=1.0)
    latents = torch.randn(2, 16, 1, 2, 2)
    with FlopCounterMode(display=False) as counter:
        projector(latents).sum().backward()
    assert counter.get_total_flops() == useful_flops(config, geometry, ("world_projector",)).world_projector.total


def test_comparison_can_fail(model, monkeypatch):
    """Control: a weight gradient for what is frozen, and attention that is recomputed."""
    batch = filled_row(samples_of())
    ran = counted(model, STAGES["projection"], inputs(batch, labels=True))["Global"]
    monkeypatch.setattr(flops, "_product", lambda forward, flows, *, trains: Passes(forward, forward, forward))
    assert difference(ran, dense(model.config, geometry_of(batch), STAGES["projection"])) < 0
    monkeypatch.setattr(flops, "_attention", lambda forward, flows: Passes(forward, 5 * forward // 2, 0))
    with pytest.raises(AssertionError):
        difference(ran, dense(model.config, geometry_of(batch), STAGES["projection"]))


@pytest.mark.parametrize("bidirectional_world", [False, True])
@pytest.mark.parametrize("window", [3, 9, 500])
def test_pairs_are_those_of_the_mask(window, bidirectional_world):
    """World and image of 4 tokens each, in windows shorter and longer than they are."""
    gemma = gemma_config(sliding_window=window)
    config = tiny_config(gemma_config=gemma, bidirectional_world=bidirectional_world)
    samples = [*samples_of(), make_sample("d", text=40, answer=1, seed=4, image=False, world=False)]
    batch = filled_row(samples)
    expected = 0
    for kind in config.get_text_config().layer_types:
        mask = sdpa_mask(
            batch.document_ids,
            batch.token_type_ids,
            sliding_window=window if kind == "sliding_attention" else None,
            bidirectional_world=bidirectional_world,
        )
        expected += int(mask.sum())
    assert attention_pairs(config, geometry_of(batch)) == expected


def test_rows_left_out_are_not_counted():
    model = make_model(gemma_config=gemma_config(num_hidden_layers=10))
    samples = [make_sample(name, text=60, answer=3, seed=seed) for seed, name in enumerate("ab")]
    batch = filled_row(samples)
    text = model.config.get_text_config()
    live = plan_live_rows(
        batch.document_ids, batch.token_type_ids, batch.target_positions, text, image_tokens=IMAGE_TOKENS, round_to=4
    )
    set_execution(model, compiled=False, recompute="none")
    geometry = geometry_of(replace(batch, live_rows=live))
    assert geometry.live_rows == (*(len(level.rows) for level in live.levels), 8)
    assert len(geometry.live_rows) == 5
    ran = counted(model, STAGES["all"], inputs(batch, labels=True) | {"live_rows": live})["Global"]
    parts = dense(model.config, geometry, STAGES["all"])
    whole = dense(model.config, geometry_of(batch), STAGES["all"])
    assert sum(ran.values()) - ran["bmm"] == sum(parts[n].total for n in parts if n not in ATTENTION)
    assert parts["language"].total < whole["language"].total  # control

    pairs = attention_pairs(model.config, geometry) - attention_pairs(model.config, replace(geometry, live_rows=()))
    kept = sum(
        int(sdpa_mask(level.document_ids, level.token_type_ids, sliding_window=9, bidirectional_world=False).sum())
        for level in live.levels
    )
    every = int(sdpa_mask(batch.document_ids, batch.token_type_ids, sliding_window=9, bidirectional_world=False).sum())
    assert pairs == kept - len(live.levels) * every


TRUE = TheWorldConfig.preset("gemma3-4b")
TWO_SAMPLES = Geometry(document_lengths=(5076, 5076), targets=400, images=2, frames=2)
LIVE = {"live_images": 2, "live_frames": 2}


@pytest.mark.parametrize(
    ("trained", "live", "expected"),
    [
        (STAGES["projection"], {}, 143.2),
        (STAGES["projection"], LIVE, 155.4),
        (STAGES["vision"], {"live_images": 2}, 179.3),
        (STAGES["language"], {}, 208.9),
        (("world_projector", "vision", "language"), LIVE, 243.8),
    ],
    ids=["projection, cached", "projection", "vision, cached latents", "language, cached", "vision and language"],
)
def test_true_dimensions(trained, live, expected):
    """Against figures worked out before, in TFLOP, which count attention's backward pass as 2.5 forward ones."""
    found = useful_flops(TRUE, replace(TWO_SAMPLES, **live), trained).total / 1e12
    assert found == pytest.approx(expected, rel=0.03)
    assert found < expected


def test_element_wise_bytes_at_true_dimensions():
    per_row = elementwise_bytes(TRUE, TWO_SAMPLES, STAGES["projection"]) / (2 * 5076 * 34)
    assert per_row == pytest.approx(420e3, rel=0.05)  # worked out before
    assert elementwise_bytes(TRUE, TWO_SAMPLES, ()) / (2 * 5076 * 34) == pytest.approx(145.4e3, rel=0.01)


def test_a_batch_that_does_not_say_how_long_it_is_is_refused():
    batch = replace(filled_row(samples_of()), document_lengths=())
    with pytest.raises(ValueError, match="found a batch without document_lengths"):
        geometry_of(batch)

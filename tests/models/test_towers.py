"""What a tower gives is what the model computes from pixels, bit for bit; its facts change with all that changes it."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import IMAGE_SIDE, WORLD_SIDE, gemma_config, inputs, make_model
from theworld.models import towers
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld
from theworld.models.towers import TOWER_GROUPS, autocast, encode, encoder_facts, tower
from theworld.types import FEATURES, Batch

ROW = [2, 9, 10, 10, 10, 10, 11, 4, 20, 6, 8, 8, 8, 8, 7, 21, 22, 5]


def batch(rows: int) -> Batch:
    ids = torch.tensor([ROW] * rows)
    generator = torch.Generator().manual_seed(1)
    return Batch(
        input_ids=ids,
        labels=torch.where(ids > 20, ids, -100),
        token_type_ids=torch.where(ids == 8, 1, 0) + torch.where(ids == 10, 2, 0),
        position_ids=torch.arange(len(ROW)).expand(rows, -1),
        document_ids=torch.zeros_like(ids),
        pixel_values=torch.rand(rows, 3, IMAGE_SIDE, IMAGE_SIDE, generator=generator) * 2 - 1,
        world_pixel_values=torch.rand(rows, 3, WORLD_SIDE, WORLD_SIDE, generator=generator) * 2 - 1,
        target_positions=torch.cat([torch.tensor([14, 15]) + row * len(ROW) for row in range(rows)]),
        step_target_tokens=1,
    )


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_features_give_the_loss_and_gradients_of_pixels(rows, precision):
    model, given = make_model(), batch(rows)
    model.requires_grad_(True)
    if precision == "bf16-mixed":
        model = model.bfloat16()
        for name, buffer in make_model().named_buffers():
            if buffer.dtype == torch.float32:
                model.get_buffer(name).data = buffer.data
    results = []
    features: dict[str, torch.Tensor] = {}
    for _ in range(2):
        with autocast(precision, torch.device("cpu")):
            kept = {k: v for k, v in inputs(given, labels=True).items() if k not in map(FEATURES.get, features)}
            loss = model(**kept, **features).loss_sum
        weights = [p for n, p in model.named_parameters() if "projector" in n or "language_model" in n]
        results.append((loss, torch.autograd.grad(loss, weights, allow_unused=True)))
        with torch.no_grad(), autocast(precision, torch.device("cpu")):
            # Contiguous in memory of its own, as a file gives it.
            features = {
                f: encode(model, f, getattr(given, pixels)).contiguous().clone(memory_format=torch.contiguous_format)
                for f, pixels in FEATURES.items()
            }
    (live, live_gradients), (cached, gradients) = results
    assert torch.equal(live, cached)
    assert live.item() > 0
    for one, other in zip(live_gradients, gradients, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def test_the_towers_are_the_fields_and_groups_of_the_others():
    model = make_model()
    assert set(TOWER_GROUPS) == set(FEATURES)
    groups = parameter_groups(model)
    for feature, group in TOWER_GROUPS.items():
        members = {id(p) for _, p in groups[group]}
        assert {id(p) for p in tower(model, feature).parameters()} <= members
    with pytest.raises(ValueError, match="enable_world=False"):
        tower(make_model(enable_world=False), "world_latents")
    with pytest.raises(ValueError, match="found precision='16-mixed', expected one of"):
        autocast("16-mixed", torch.device("cpu"))


def facts(model: TheWorld, precision: str = "32-true") -> dict[str, dict[str, str]]:
    return {feature: encoder_facts(model, feature, precision=precision) for feature in TOWER_GROUPS}


def test_the_same_model_has_the_same_facts_wherever_it_comes_from(tmp_path):
    model = make_model()
    before = facts(model)
    assert before == facts(make_model())
    assert before["image_features"]["weights_sha256"] != before["world_latents"]["weights_sha256"]
    model.save_pretrained(tmp_path)
    assert facts(TheWorld.from_pretrained(str(tmp_path))) == before
    model.gemma.model.language_model.layers[0].mlp.up_proj.weight.data += 1  # not part of a tower
    model.gemma.model.multi_modal_projector.mm_input_projection_weight.data += 1
    model.cosmos_encoder.projector.layers[0].weight.data += 1
    assert facts(model) == before


def _flip(tensor: torch.Tensor) -> None:
    tensor.data.reshape(-1)[:1].view(torch.int32).bitwise_xor_(1)


@pytest.mark.parametrize(
    ("feature", "change", "named"),
    [
        ("image_features", lambda m: _flip(m.gemma.model.vision_tower.post_layernorm.bias), "weights_sha256"),
        ("image_features", lambda m: m.gemma.model.vision_tower.bfloat16(), "weights_dtype"),
        ("world_latents", lambda m: _flip(m.cosmos_encoder.vae.quant_conv.bias), "weights_sha256"),
        ("world_latents", lambda m: _flip(m.cosmos_encoder.vae.latents_std), "weights_sha256"),
        ("world_latents", lambda m: m.cosmos_encoder.vae.encoder.bfloat16(), "weights_dtype"),
    ],
)
def test_each_change_shows(feature, change, named):
    model = make_model()
    before = facts(model)
    change(model)
    after = facts(model)
    assert after[feature][named] != before[feature][named]
    (other,) = set(TOWER_GROUPS) - {feature}
    assert after[other] == before[other]


def test_settings_that_no_weight_shows_are_covered():
    config = gemma_config()
    config.vision_config.layer_norm_eps = 1e-5
    changed = facts(make_model(gemma_config=config))["image_features"]["weights_sha256"]
    assert changed != facts(make_model())["image_features"]["weights_sha256"]
    assert facts(make_model(), "bf16-mixed")["world_latents"]["precision"] == "bf16-mixed"


def test_features_of_a_gpu_are_not_taken_for_those_of_the_convolution(model):
    """A GPU multiplies SigLIP's patches, which gives other last bits than the convolution that it ran before."""
    on = {device: towers._settings(model, "image_features", device=device) for device in ("cpu", "cuda")}
    assert on["cuda"] == on["cpu"] | {"patches": "product"}
    assert towers._settings(model, "world_latents", device="cuda") == {}

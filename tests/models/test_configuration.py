"""The two presets have the sizes they claim, and a config that cannot work is refused."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan

from tests.tiny import tiny_config
from theworld.models.configuration import TheWorldConfig
from theworld.models.cosmos_encoder import new_projector
from theworld.models.theworld import TheWorld


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_gemma3_4b_parameter_counts():
    with torch.device("meta"):
        model = TheWorld(TheWorldConfig.preset("gemma3-4b"))
        whole_vae = AutoencoderKLWan()
    assert count(model.gemma) == 4_300_079_472
    assert count(model.cosmos_encoder.vae) == 53_596_928
    assert count(model.cosmos_encoder.vae.encoder) == 53_595_872
    assert count(whole_vae) == 126_892_531
    groups = model.parameter_counts()
    assert groups["world_projector"] == 6_599_680
    assert groups["world_encoder"] == 53_596_928
    assert groups["vision"] + groups["language"] == 4_300_079_472


@pytest.mark.parametrize(
    ("mode", "architecture", "parameters", "tokens"),
    [("spatial", "mlp", 6_599_680, 4096), ("spatial", "linear", 43_520, 4096), ("channel", "mlp", 17_044_480, 16)],
)
def test_projector_parameter_counts(mode, architecture, parameters, tokens):
    config = TheWorldConfig.preset("gemma3-4b", world_projection_mode=mode, projection_architecture=architecture)
    with torch.device("meta"):
        assert count(new_projector(config, target_rms=1.0)) == parameters
    assert config.num_world_tokens == tokens


@pytest.mark.parametrize(("size", "steps", "tokens"), [(512, 0, 4096), (224, 0, 784), (512, 2, 3 * 4096)])
def test_num_world_tokens(size, steps, tokens):
    assert TheWorldConfig.preset("gemma3-4b", world_image_size=size, num_world_steps=steps).num_world_tokens == tokens


def test_tiny_is_tiny():
    config = TheWorldConfig.preset("tiny")
    with torch.device("meta"):
        model = TheWorld(config)
    assert count(model.gemma) < 3_000_000
    assert count(AutoencoderKLWan.from_config(config.vae_config)) < 1_000_000
    assert config.num_world_tokens == 64
    assert config.gemma_config.text_config.layer_types == ["sliding_attention"] * 5 + ["full_attention"]


def test_round_trip(tmp_path):
    config = tiny_config(bidirectional_world=True, world_projection_mode="channel")
    config.save_pretrained(tmp_path)
    loaded = TheWorldConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.gemma_config.text_config.sliding_window == 9


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"world_projection_mode": "both"}, "world_projection_mode='both'"),
        ({"world_projection_mode": "channel", "projection_architecture": "linear"}, "mlp projection only"),
        ({"world_image_size": 20}, "multiple of the latent stride 8"),
        ({"num_world_steps": 17}, "num_world_steps=17, expected 0 to max_world_steps=16"),
        ({"world_token_id": None}, "three different ids below 64"),
        ({"world_token_id": 9}, "three different ids below 64"),
        ({"gemma_config": None}, "gemma_config is missing"),
    ],
)
def test_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**overrides)


def test_softcapping_is_refused():
    gemma = tiny_config().gemma_config
    gemma.text_config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="final_logit_softcapping=30.0"):
        tiny_config(gemma_config=gemma)


def test_unknown_preset():
    with pytest.raises(ValueError, match="found preset 'huge'"):
        TheWorldConfig.preset("huge")

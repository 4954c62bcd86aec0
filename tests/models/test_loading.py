"""Bases written by transformers and diffusers, our own exports, and checkpoints with something wrong in them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.conftest import make_sample, packed, padded
from tests.tiny import inputs, make_model
from theworld.models.loading import text_rms
from theworld.models.parameter_groups import parameter_groups
from theworld.models.theworld import TheWorld

GEMMA_FILE = "model.safetensors"
VAE_FILE = "vae/diffusion_pytorch_model.safetensors"


def edit(file: Path, *, drop: str | None = None, add: str | None = None) -> None:
    weights = load_file(file)
    if drop:
        del weights[drop]
    if add:
        weights[add] = torch.zeros(2)
    save_file(weights, file, metadata={"format": "pt"})


def edit_config(folder: Path, **values) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.fixture
def base(tmp_path, write_base) -> Path:
    write_base(tmp_path / "base")
    return tmp_path / "base"


def load(folder: Path, **settings) -> TheWorld:
    return TheWorld.from_pretrained(folder, **({"world_image_size": 16} | settings))


@torch.no_grad()
def test_base_loads_every_weight(tmp_path, write_base, caplog):
    gemma, vae = write_base(tmp_path)
    with caplog.at_level(logging.WARNING, logger="theworld"):
        model = load(tmp_path)
    assert "The world projector is new" in caplog.text
    assert "unexpected" not in caplog.text
    loaded = model.gemma.state_dict()
    for name, weight in gemma.state_dict().items():
        assert torch.equal(loaded[name], weight), name
    for name, weight in model.cosmos_encoder.vae.state_dict().items():
        if not name.startswith("latents_"):
            assert torch.equal(weight, vae.state_dict()[name]), name
    assert (model.config.start_of_world_token_id, model.config.world_token_id) == (9, 10)
    assert model.config.end_of_world_token_id == 11
    assert model.cosmos_encoder.projector.target_rms.item() == pytest.approx(text_rms(gemma), rel=1e-6)
    samples = [make_sample("a", text=5, answer=3, seed=0, world=False)]
    ids = samples[0].input_ids[None]
    types = samples[0].token_type_ids[None]
    theirs = gemma(input_ids=ids, pixel_values=samples[0].pixel_values, token_type_ids=types).logits
    off = load(tmp_path, enable_world=False)
    assert off.cosmos_encoder is None
    for fused in (model, off):  # without world placeholders, both are Gemma
        assert torch.equal(fused(ids, pixel_values=samples[0].pixel_values).logits, theirs)


def test_cosmos_model_from_its_own_directory(tmp_path, write_base):
    write_base(tmp_path / "gemma")
    (tmp_path / "cosmos").mkdir()
    (tmp_path / "gemma" / "vae").rename(tmp_path / "cosmos" / "vae")
    model = load(tmp_path / "gemma", cosmos_model=str(tmp_path / "cosmos"))
    assert model.config.latent_channels == 16


def test_what_is_frozen(base):
    def trains(**settings: bool) -> set[str]:
        groups = parameter_groups(load(base, **settings))
        assert all(len({p.requires_grad for _, p in members}) == 1 for members in groups.values())
        return {group for group, members in groups.items() if members[0][1].requires_grad}

    assert trains() == {"world_projector"}
    for setting, group in (
        ("freeze_gemma_vision", "vision"),
        ("freeze_gemma_language", "language"),
        ("freeze_cosmos_vae", "world_encoder"),
    ):
        assert trains(**{setting: False}) == {"world_projector", group}


def test_projector_follows_the_seed(base):
    torch.manual_seed(5)
    first = load(base).cosmos_encoder.projector.layers[0].weight
    torch.manual_seed(5)
    assert torch.equal(first, load(base).cosmos_encoder.projector.layers[0].weight)
    assert not torch.equal(first, load(base).cosmos_encoder.projector.layers[0].weight)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["base", "export"])
def test_bfloat16_keeps_the_statistics_in_float32(base, tmp_path, kind):
    model = load(base, dtype=torch.bfloat16)
    if kind == "export":
        model.save_pretrained(tmp_path / "export")
        model = TheWorld.from_pretrained(tmp_path / "export")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    exact = load(base)
    assert torch.equal(model.cosmos_encoder.vae.latents_mean, exact.cosmos_encoder.vae.latents_mean)
    assert model.cosmos_encoder.projector.target_rms.dtype == torch.float32
    batch = packed([make_sample("a", text=5, answer=3, seed=0)], 30)
    out = model(**inputs(batch, labels=True))
    assert out.loss.dtype == torch.float32
    assert torch.isfinite(out.loss)


@pytest.mark.parametrize(("stored", "wanted"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_an_export_is_loaded_in_the_type_asked_for(base, tmp_path, stored, wanted):
    model = load(base, dtype=stored)
    model.save_pretrained(tmp_path / "export")
    again = TheWorld.from_pretrained(tmp_path / "export", dtype=wanted)
    assert {p.dtype for p in again.parameters()} == {wanted}
    assert again.gemma.lm_head.weight is again.gemma.get_input_embeddings().weight
    for (name, one), (_, other) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one.to(wanted), other), name
    assert again.cosmos_encoder.projector.target_rms.dtype == torch.float32


@pytest.mark.parametrize(
    ("file", "stored", "named"),
    [
        (GEMMA_FILE, "layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        (GEMMA_FILE, "mm_input_projection_weight", "mm_input_projection_weight"),
        (VAE_FILE, "encoder.conv_in.weight", "'encoder.conv_in.weight'"),
        (VAE_FILE, "quant_conv.bias", "'quant_conv.bias'"),
    ],
)
def test_missing_weight_is_an_error(base, file, stored, named):
    candidates = [k for k in load_file(base / file) if k.endswith(stored) and not k.startswith("post_")]
    edit(base / file, drop=min(candidates, key=len))
    with pytest.raises(ValueError, match=f"missing keys .*{named}"):
        load(base)


def test_decoder_may_be_absent(base):
    weights = load_file(base / VAE_FILE)
    kept = {k: v for k, v in weights.items() if k.startswith(("encoder.", "quant_conv."))}
    assert len(kept) < len(weights)
    save_file(kept, base / VAE_FILE, metadata={"format": "pt"})
    loaded = load(base).cosmos_encoder.vae.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in kept.items())


def test_pickled_weights_are_refused(base):
    torch.save(load_file(base / GEMMA_FILE), base / "pytorch_model.bin")
    (base / GEMMA_FILE).unlink()
    with pytest.raises(OSError, match="safetensors"):
        load(base)


@pytest.mark.parametrize("file", [GEMMA_FILE, VAE_FILE])
def test_unexpected_weight_is_reported(base, file, caplog):
    edit(base / file, add="surplus.weight")
    with caplog.at_level(logging.WARNING, logger="theworld"):
        load(base)
    assert "surplus.weight" in caplog.text


def test_tokenizer_without_world_tokens(base):
    file = base / "tokenizer.json"
    file.write_text(file.read_text().replace("<unused1>", "<other>"))
    with pytest.raises(ValueError, match=r"lacks \['<unused1>'\]"):
        load(base)
    assert load(base, enable_world=False).cosmos_encoder is None


def test_other_models_are_refused(base):
    edit_config(base, model_type="llava")
    with pytest.raises(ValueError, match="found model_type 'llava'"):
        load(base)


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"enable_world": False}, {"world_projection_mode": "channel"}])
def test_export_round_trip(tmp_path, settings):
    world = settings.get("enable_world", True)
    mode = settings.get("world_projection_mode", "spatial")
    model = make_model(seed=3, **settings)
    samples = [
        make_sample(n, text=5 + i, answer=3, seed=i, world=world and mode == "spatial") for i, n in enumerate("ab")
    ]
    before = model(**inputs(padded(samples))).logits
    model.save_pretrained(tmp_path)
    loaded = TheWorld.from_pretrained(tmp_path, enable_world=world)
    assert torch.equal(loaded(**inputs(padded(samples))).logits, before)
    for (name, one), (other_name, other) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other_name
        assert torch.equal(one, other), name
    assert loaded.config.world_projection_mode == mode
    assert loaded.generation_config.eos_token_id == [1, 5]
    assert loaded.gemma.lm_head.weight is loaded.get_input_embeddings().weight
    stored = load_file(tmp_path / GEMMA_FILE)
    assert sum(v.numel() for k, v in stored.items() if "target_rms" not in k and "latents_" not in k) == sum(
        model.parameter_counts().values()
    )


@torch.no_grad()
def test_export_without_its_world(tmp_path, caplog):
    model = make_model(seed=3)
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="theworld"):
        off = TheWorld.from_pretrained(tmp_path, enable_world=False)
    assert "unexpected" not in caplog.text
    batch = padded([make_sample("a", text=5, answer=3, seed=0, world=False)])
    assert torch.equal(off(**inputs(batch)).logits, model(**inputs(batch)).logits)


def test_export_that_lacks_a_weight(tmp_path):
    make_model().save_pretrained(tmp_path)
    edit(tmp_path / GEMMA_FILE, drop="cosmos_encoder.projector.layers.0.weight")
    with pytest.raises(ValueError, match=r"missing keys \['cosmos_encoder.projector.layers.0.weight'\]"):
        TheWorld.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("edits", "settings", "message"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, {}, "found auto_map"),
        ({"enable_world": False}, {}, "exported without a world branch"),
        ({}, {"cosmos_model": "somewhere"}, "cosmos_model='somewhere' for the export"),
        ({}, {"world_projection_mode": "channel"}, "world_projection_mode='channel', expected 'spatial'"),
        ({}, {"projection_architecture": "linear"}, "projection_architecture='linear', expected 'mlp'"),
        ({}, {"world_image_size": 32}, "world_image_size=32, expected 16, which .* was trained with"),
        ({}, {"bidirectional_world": True}, "bidirectional_world=True, expected False"),
    ],
)
def test_export_refused(tmp_path, edits, settings, message):
    make_model().save_pretrained(tmp_path)
    edit_config(tmp_path, **edits)
    with pytest.raises(ValueError, match=message):
        TheWorld.from_pretrained(tmp_path, **settings)


def test_an_export_keeps_what_it_was_trained_with(tmp_path):
    make_model(bidirectional_world=True).save_pretrained(tmp_path)
    for settings in ({}, {"bidirectional_world": True, "world_image_size": 16}):
        config = TheWorld.from_pretrained(tmp_path, **settings).config
        assert config.bidirectional_world
        assert config.num_world_tokens == 4

"""The denoiser is loaded part by part, from diffusers' layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import CosmosTransformer3DModel, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from tests.models.world_sources.conftest import new_scheduler, new_transformer
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.denoiser import Denoiser


def test_weights_and_settings_are_read(repository: Path):
    denoiser = Denoiser.from_pretrained(str(repository), dtype=torch.float32)
    expected = new_transformer().state_dict()
    found = denoiser.transformer.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert denoiser.scheduler.config.use_karras_sigmas
    assert (denoiser.latent_channels, denoiser.text_width) == (16, 12)
    assert not any(parameter.requires_grad for parameter in denoiser.transformer.parameters())


def test_only_the_needed_parts_are_read(repository: Path, tmp_path: Path):
    """A folder without text encoder, tokenizer and VAE is enough; the VAE is another part's."""
    for part in ("transformer", "scheduler"):
        shutil.copytree(repository / part, tmp_path / part)
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "model.safetensors").write_bytes(b"not to be opened")
    assert Denoiser.from_pretrained(str(tmp_path), dtype=torch.float32).latent_channels == 16


@pytest.mark.parametrize(
    "part",
    [
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_a_missing_part_is_named(repository: Path, tmp_path: Path, part: str):
    shutil.copytree(repository, tmp_path / "cosmos")
    (tmp_path / "cosmos" / part).unlink()
    load = WorldEncoder.from_pretrained if part.startswith("vae") else Denoiser.from_pretrained
    with pytest.raises(ValueError, match=f"found no .*cosmos/{part}, expected it"):
        load(str(tmp_path / "cosmos"))


def test_weights_in_shards_are_read(repository: Path, tmp_path: Path):
    shutil.copytree(repository, tmp_path / "cosmos")
    shutil.rmtree(tmp_path / "cosmos" / "transformer")
    new_transformer().save_pretrained(tmp_path / "cosmos" / "transformer", max_shard_size="60KB")
    assert len(list((tmp_path / "cosmos" / "transformer").glob("*.safetensors"))) > 1
    found = Denoiser.from_pretrained(str(tmp_path / "cosmos"), dtype=torch.float32).fingerprint()
    assert found == Denoiser.from_pretrained(str(repository), dtype=torch.float32).fingerprint()


def test_a_missing_weight_is_named(repository: Path, tmp_path: Path):
    shutil.copytree(repository, tmp_path / "cosmos")
    path = tmp_path / "cosmos" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["proj_out.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing keys \['proj_out.weight'\]"):
        Denoiser.from_pretrained(str(tmp_path / "cosmos"))


def test_noise_levels_are_those_of_karras():
    """σ_i = (80^⅐ + i / (n − 1) · (0.002^⅐ − 80^⅐))⁷ (Karras et al. 2022, equation 5)."""
    sigmas = Denoiser(new_transformer(), new_scheduler()).sigmas(5, torch.device("cpu"))
    high, low = 80 ** (1 / 7), 0.002 ** (1 / 7)
    expected = [(high + number / 4 * (low - high)) ** 7 for number in range(5)]
    torch.testing.assert_close(sigmas, torch.tensor([*expected, expected[-1]]))


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="expected one channel more than it gives"):
        Denoiser(CosmosTransformer3DModel(in_channels=16, num_layers=1, num_attention_heads=1), new_scheduler())
    with pytest.raises(ValueError, match="found a scheduler without use_karras_sigmas"):
        Denoiser(new_transformer(), FlowMatchEulerDiscreteScheduler())

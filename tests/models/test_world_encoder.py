"""The world branch against diffusers' own encode, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from PIL import Image

from tests.tiny import VAE_CONFIG, tiny_config
from theworld.models.cosmos_encoder import CosmosEncoder
from theworld.models.projector import WorldProjector
from theworld.models.world_encoder import FrameConv3d, WorldEncoder


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan.from_config(VAE_CONFIG).eval()


def their_latents(autoencoder: AutoencoderKLWan, pixels: torch.Tensor) -> torch.Tensor:
    """diffusers' recipe: encode, mode, normalise."""
    untouched = AutoencoderKLWan.from_config(autoencoder.config).to(pixels.dtype)  # ours has changed its encoder
    untouched.load_state_dict(autoencoder.state_dict())
    mode = untouched.encode(pixels.unsqueeze(2)).latent_dist.mode()
    mean = torch.tensor(autoencoder.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(autoencoder.config.latents_std).view(1, -1, 1, 1, 1)
    return (mode - mean) / std


def branch(autoencoder: AutoencoderKLWan, size: int, mode: str = "spatial") -> CosmosEncoder:
    encoder = CosmosEncoder.from_config(tiny_config(world_image_size=size, world_projection_mode=mode))
    encoder.vae = WorldEncoder(autoencoder)
    return encoder.eval()


@torch.no_grad()
def test_latents_equal_diffusers(autoencoder):
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    ours = WorldEncoder(autoencoder)(pixels)
    assert ours.shape == (2, 16, 1, 4, 6)
    torch.testing.assert_close(ours, their_latents(autoencoder, pixels), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_frame_is_encoded_in_two_dimensions_and_several_are_not(autoencoder):
    encoder = WorldEncoder(autoencoder).double()
    first = encoder.encoder.conv_in
    assert type(first) is FrameConv3d
    frames = torch.randn(2, 3, 3, 8, 8, dtype=torch.float64)
    theirs = WanCausalConv3d(3, first.out_channels, 3, padding=1).double()
    theirs.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(frames[:, :, :1]), theirs(frames[:, :, :1]), rtol=1e-12, atol=1e-12)
    assert torch.equal(first(frames), theirs(frames))
    wrong_tap = torch.nn.functional.conv2d(frames[:, :, 0], first.weight[:, :, 0], first.bias, padding=1)
    assert not torch.allclose(first(frames[:, :, :1])[:, :, 0], wrong_tap)


@torch.no_grad()
@pytest.mark.parametrize(("size", "tokens"), [(512, 4096), (224, 784)])
def test_tokens_of_an_image(autoencoder, size, tokens):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    encoder = branch(autoencoder, size)
    found = encoder([image])
    assert found.shape == (1, tokens, 32)
    resized = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(resized.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    latents = their_latents(autoencoder, pixels)[:, :, 0]
    by_cell = torch.stack([latents[0, :, i // (size // 8), i % (size // 8)] for i in range(tokens)])
    raw = encoder.projector.layers(by_cell)
    expected = raw / raw.square().mean(-1, keepdim=True).sqrt() * encoder.projector.target_rms
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_channel_mode(autoencoder):
    encoder = branch(autoencoder, 32, "channel")
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    latents = their_latents(autoencoder, pixels)[0, :, 0].flatten(1)
    raw = encoder.projector.layers(latents)
    expected = raw / raw.square().mean(-1, keepdim=True).sqrt() * encoder.projector.target_rms
    found = encoder(pixels)
    assert found.shape == (1, 16, 32)
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="found latents of 4 cells, expected 16"):
        encoder(torch.zeros(1, 3, 16, 16))


def projector(mode: str = "spatial", target_rms: float = 2.5) -> WorldProjector:
    return WorldProjector(
        latent_channels=16, hidden_size=32, mode=mode, architecture="mlp", latent_cells=4, target_rms=target_rms
    )


def test_tokens_have_the_target_rms():
    tokens = projector()(torch.randn(2, 16, 1, 2, 2) * 100)
    torch.testing.assert_close(tokens.square().mean(-1).sqrt(), torch.full((2, 4), 2.5), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("mode", "per_frame"), [("spatial", 4), ("channel", 16)])
def test_frames_come_in_order(mode, per_frame):
    latents = torch.randn(2, 16, 3, 2, 2)
    layer = projector(mode)
    together = layer(latents)
    apart = torch.cat([layer(latents[:, :, f : f + 1]) for f in range(3)], dim=1)
    assert together.shape == (2, 3 * per_frame, 32)
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(together[:, :per_frame], together[:, per_frame : 2 * per_frame])


@pytest.mark.parametrize("scale", [255.0, 1.5])
def test_out_of_range_pixels_are_refused(autoencoder, scale):
    with pytest.raises(ValueError, match=r"expected \[-1, 1\]"):
        WorldEncoder(autoencoder)(torch.ones(1, 3, 16, 16) * scale)


def test_buffers_cast_to_bfloat16_are_refused(autoencoder):
    encoder = CosmosEncoder.from_config(tiny_config()).bfloat16()
    with pytest.raises(ValueError, match=r"latent statistics in torch.bfloat16, expected float32"):
        encoder(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"target_rms in torch.bfloat16, expected float32"):
        projector().bfloat16()(torch.randn(1, 16, 1, 2, 2))


def test_patchified_vae_is_refused():
    vae = AutoencoderKLWan.from_config(VAE_CONFIG | {"patch_size": 2, "in_channels": 12, "out_channels": 12})
    with pytest.raises(ValueError, match="patch_size=2"):
        WorldEncoder(vae)

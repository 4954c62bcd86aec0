"""Hidden states of the denoiser as a world source."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.world_sources.conftest import new_scheduler, new_transformer, new_vae
from tests.models.world_sources.test_rollout import images, pixels_of
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.denoiser import Denoiser
from theworld.models.world_sources.hidden_states import HiddenStates, HiddenStatesSettings
from theworld.models.world_sources.source import noise


def source(**settings: float) -> HiddenStates:
    chosen = HiddenStatesSettings(**({"block": 1} | settings))
    return HiddenStates(WorldEncoder(new_vae()), Denoiser(new_transformer(), new_scheduler()), chosen)


def by_hand(pixels: Tensor, *, block: int, sigma: float) -> Tensor:
    """The block's output, with diffusers' transformer called as it stands."""
    transformer = new_transformer().eval()
    transformer.register_to_config(concat_padding_mask=False)
    latents = WorldEncoder(new_vae())(pixels)
    noisy = latents + sigma * torch.stack([noise(latents.shape[1:], seed=0, key=key) for key in "ab"])
    caught = []
    transformer.transformer_blocks[block].register_forward_hook(lambda *call: caught.append(call[2]))
    with torch.no_grad():
        transformer(
            torch.cat([noisy / (1 + sigma), torch.zeros(2, 2, *noisy.shape[2:])], dim=1),
            timestep=torch.full((2,), sigma / (1 + sigma)),
            encoder_hidden_states=torch.zeros(2, 1, 12),
            fps=16,
        )
    states = caught[0].view(2, 2, 2, -1).permute(0, 3, 1, 2)[:, :, None]
    return states / states.square().mean(dim=1, keepdim=True).sqrt()


@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_states_are_those_of_the_block(block: int, sigma: float):
    pixels = pixels_of(images(2))
    found = source(block=block, sigma=sigma).encode(pixels, ["a", "b"])
    assert found.shape == (2, 48, 1, 2, 2)
    assert source().latent_channels == 48
    torch.testing.assert_close(found, by_hand(pixels, block=block, sigma=sigma), rtol=1e-4, atol=1e-5)


def test_blocks_behind_the_chosen_one_are_not_kept():
    assert len(source(block=0).denoiser.transformer.transformer_blocks) == 1
    with pytest.raises(ValueError, match="found block=3, expected less than 3"):
        source(block=3)
    with pytest.raises(ValueError, match="expected a block and sigma of at least 0"):
        source(sigma=-1)


def test_fingerprints_tell_apart_what_gives_other_states():
    prints = [source(), source(block=2), source(sigma=0.1), source(seed=1)]
    assert len({repr(one.fingerprint()) for one in prints}) == 4
    assert source().fingerprint() == prints[0].fingerprint()

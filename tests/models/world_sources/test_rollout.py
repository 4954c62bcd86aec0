"""A rollout is what diffusers' own pipeline imagines, except where it says otherwise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from diffusers import Cosmos2VideoToWorldPipeline
from diffusers.models.transformers import transformer_cosmos
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.models.world_sources.conftest import TEXT_WIDTH, new_scheduler, new_transformer, new_vae
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.denoiser import Denoiser
from theworld.models.world_sources.hidden_states import HiddenStates, HiddenStatesSettings
from theworld.models.world_sources.rollout import Rollout, RolloutSettings
from theworld.models.world_sources.source import content_keys, noise
from theworld.models.world_sources.text import Text

SIDE, STEPS = 32, 6


class NoGuardrail(nn.Module):
    """In place of the guardrail models, which would judge text and pictures; there is neither here."""

    device, dtype = torch.device("cpu"), torch.float32


def images(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(3)
    return [Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(count)]


def pixels_of(pictures: list[Image.Image]) -> Tensor:
    stacked = torch.from_numpy(np.stack([np.array(picture) for picture in pictures]))
    return stacked.permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def texts(guided: bool) -> Text:
    generator = torch.Generator().manual_seed(4)
    prompt, negative = (torch.randn(5, TEXT_WIDTH, generator=generator) for _ in range(2))
    return Text(prompt=prompt, negative=negative if guided else None)


def rollout(steps: int, text: Text | None = None, **settings: object) -> Rollout:
    chosen = RolloutSettings(num_world_steps=steps, num_inference_steps=STEPS, **settings)
    return Rollout(WorldEncoder(new_vae()), Denoiser(new_transformer(), new_scheduler()), chosen, text=text)


def pipeline_latents(
    picture: Image.Image, drawn: Tensor, text: Text, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """What the pipeline gives with `output_type="latent"` for the same noise."""
    resize = SimpleNamespace(
        functional=SimpleNamespace(
            resize=lambda mask, size, interpolation: nn.functional.interpolate(mask, size, mode="nearest")
        ),
        InterpolationMode=SimpleNamespace(NEAREST=None),
    )
    monkeypatch.setattr(transformer_cosmos, "transforms", resize, raising=False)  # torchvision's, which is not here
    pipeline = Cosmos2VideoToWorldPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=new_transformer(),
        vae=new_vae(),
        scheduler=new_scheduler(),
        safety_checker=NoGuardrail(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        image=picture,
        prompt_embeds=text.prompt[None],
        negative_prompt_embeds=None if text.negative is None else text.negative[None],
        height=SIDE,
        width=SIDE,
        num_frames=1 + 4 * (drawn.shape[2] - 1),
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        latents=drawn,
        output_type="latent",
    ).frames


@pytest.mark.parametrize(("steps", "guidance"), [(1, 1.0), (1, 7.0), (3, 1.0), (3, 3.0)])
def test_latents_are_those_of_the_pipeline(steps: int, guidance: float, monkeypatch: pytest.MonkeyPatch):
    text = texts(guided=guidance > 1)
    source = rollout(steps, text, guidance_scale=guidance)
    (picture,) = images(1)
    drawn = noise((16, 1 + steps, SIDE // 8, SIDE // 8), seed=0, key="a picture")[None]
    expected = pipeline_latents(picture, drawn, text, guidance, monkeypatch)
    present = source.vae(pixels_of([picture]))
    found = source.denoised(present, drawn)
    assert found.shape == expected.shape == (1, 16, 1 + steps, 4, 4)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.std().item())
    encoded = source.encode(pixels_of([picture]), ["a picture"])
    assert torch.equal(encoded[:, :, 1:], found[:, :, 1:])
    assert torch.equal(encoded[:, :, :1], present), "the present frame stays as it is"


@pytest.mark.parametrize("changed", ["text", "noise", "image", "fps", "given_sigma"])
def test_what_should_change_the_future_does(changed: str):
    """The comparison above would see an input that is not used."""
    given = {"fps": {"fps": 24}, "given_sigma": {"given_sigma": 0.5}}
    first, other = rollout(2, texts(False)), rollout(2, texts(False), **given.get(changed, {}))
    one, two = pixels_of(images(2)).split(1)
    if changed == "text":
        other.text = Text(prompt=2 * other.text.prompt)
    found = first.encode(one, ["x"])[:, :, 1:]
    changed_input = two if changed == "image" else one
    assert not torch.allclose(
        found, other.encode(changed_input, ["y" if changed == "noise" else "x"])[:, :, 1:], rtol=1e-4
    )


def test_no_step_is_the_frame_bit_for_bit():
    source = rollout(0)
    pixels = pixels_of(images(2))
    assert torch.equal(source.encode(pixels, ["a", "b"]), WorldEncoder(new_vae())(pixels))


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_blocks_make_the_same_future(backend: str):
    """A graph for all blocks: they run through one piece of code, with weights of their own."""
    pixels, plain, compiled = pixels_of(images(1)), rollout(2), rollout(2)
    torch._dynamo.reset()
    counted = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled.denoiser.compile_blocks(backend=counted)
    expected, found = plain.encode(pixels, ["a"]), compiled.encode(pixels, ["a"])
    if backend == "eager":
        assert torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert 1 <= counted.frame_count <= 2
    states = [HiddenStates(s.vae, s.denoiser, HiddenStatesSettings(block=1)) for s in (plain, compiled)]
    expected, found = (source.encode(pixels, ["a"]) for source in states)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_future_follows_from_seed_and_key_alone():
    pixels = pixels_of(images(2))
    together = rollout(2).encode(pixels, ["a", "b"])
    alone = rollout(2).encode(pixels[1:], ["b"])
    torch.testing.assert_close(together[1:], alone, rtol=1e-5, atol=1e-5)
    assert torch.equal(rollout(2).encode(pixels, ["a", "b"]), together)
    for other in (rollout(2).encode(pixels, ["a", "c"]), rollout(2, seed=1).encode(pixels, ["a", "b"])):
        assert not torch.allclose(other[1:, :, 1:], together[1:, :, 1:], rtol=1e-3)


def test_pictures_and_seeds_do_not_share_their_noise():
    """Many keys: a short hash would give two of them the same numbers."""
    drawn = [noise((4,), seed=seed, key=f"picture {number}") for seed in (0, 1) for number in range(500)]
    assert len({tuple(one.tolist()) for one in drawn}) == len(drawn)
    far = torch.stack([noise((64,), seed=0, key=str(number)) for number in range(500)])
    assert abs(float(far.mean())) < 0.03
    assert abs(float(far.std()) - 1) < 0.03


def test_zeros_for_text_are_no_text():
    """However many: cross-attention takes nothing of them."""
    source = rollout(1)
    pixels = pixels_of(images(1))
    alone = source.encode(pixels, ["a"])
    source.text = Text(prompt=torch.zeros(9, TEXT_WIDTH))
    torch.testing.assert_close(source.encode(pixels, ["a"]), alone, rtol=1e-5, atol=1e-5)


def test_a_text_file_is_read(tmp_path: Path):
    text = texts(True)
    path = tmp_path / "text.safetensors"
    save_file({"prompt_embeds": text.prompt, "negative_prompt_embeds": text.negative}, path)
    read = Text.read(path)
    assert torch.equal(read.prompt, text.prompt)
    assert torch.equal(read.negative, text.negative)
    save_file({"embeds": text.prompt}, path)
    with pytest.raises(ValueError, match="expected prompt_embeds"):
        Text.read(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="text.safetensors: is no file of safetensors"):
        Text.read(path)


@pytest.mark.parametrize(
    "embeds", [torch.ones(5, 7), torch.ones(0, TEXT_WIDTH), torch.full((5, TEXT_WIDTH), torch.nan)]
)
@pytest.mark.parametrize("name", ["prompt", "negative"])
def test_a_text_of_another_encoder_is_refused(embeds: Tensor, name: str):
    given = {"prompt": torch.ones(5, TEXT_WIDTH), "negative": torch.ones(4, TEXT_WIDTH)} | {name: embeds}
    with pytest.raises(ValueError, match=rf"found {name}.*embeds .*expected finite numbers \(L, {TEXT_WIDTH}\)"):
        rollout(1, Text(**given), guidance_scale=2.0)


def test_fingerprints_tell_apart_what_gives_other_latents(repository: Path):
    prints = [
        rollout(1).fingerprint(),
        rollout(2).fingerprint(),
        rollout(1, seed=1).fingerprint(),
        rollout(1, texts(False)).fingerprint(),
        rollout(1, fps=24).fingerprint(),
    ]
    changed = rollout(1)
    with torch.no_grad():
        changed.denoiser.transformer.proj_out.weight[0, 0] += 1e-3
    prints.append(changed.fingerprint())
    assert rollout(1).fingerprint() == prints[0]
    loaded = Denoiser.from_pretrained(str(repository), dtype=torch.float32)
    assert loaded.fingerprint() == rollout(1).denoiser.fingerprint()
    assert len({repr(one) for one in prints}) == len(prints)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_world_steps": -1}, "num_world_steps of at least 0"),
        ({"num_world_steps": 1, "num_inference_steps": 1}, "num_inference_steps of at least 2"),
        ({"num_world_steps": 1, "guidance_scale": 0.5}, "guidance_scale of at least 1"),
        ({"num_world_steps": 1, "guidance_scale": float("nan")}, "guidance_scale of at least 1"),
        ({"num_world_steps": 1, "given_sigma": -1.0}, "given_sigma of at least 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        RolloutSettings(**settings)


def test_guidance_needs_a_negative_text():
    with pytest.raises(ValueError, match="found guidance_scale=7.0 without negative_prompt_embeds"):
        rollout(1, texts(False), guidance_scale=7.0)


def test_keys_follow_from_content():
    one, two = pixels_of(images(2)).split(1)
    assert content_keys(torch.cat([one, two, one]))[0] == content_keys(one)[0]
    assert len(set(content_keys(torch.cat([one, two, one])))) == 2

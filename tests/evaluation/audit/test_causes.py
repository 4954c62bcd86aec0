"""Each way to disconnect a branch is found and named; a connected one is not taken for one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from tests.training.conftest import write_tiny_base
from theworld.data.pictures.blank import GREY
from theworld.evaluation.audit.arms import WORLD_ARMS
from theworld.evaluation.audit.causes import LEAST_VARYING, disconnections
from theworld.models import theworld
from theworld.models.interventions import Intervention


def test_connected_branches_are_no_error(findings):
    assert findings.errors == ()
    assert findings.replay_difference == 0.0
    assert all(result.logits_changed == findings.n for result in findings.results if result.arm != "real")


def test_no_world_branch(audited):
    with pytest.raises(ValueError, match="without a world branch .enable_world=False."):
        audited.run(audited.model(enable_world=False), audited.samples(enable_world=False))


def test_a_processor_that_leaves_the_world_out(audited):
    with pytest.raises(ValueError, match="found no world placeholders .* the processor has enable_world=False"):
        audited.run(audited.model(), audited.samples(enable_world=False))


def test_frames_that_never_arrive(audited, monkeypatch):
    """The bug of the prior art: world tokens are asked for, and no image is passed on."""
    samples = audited.samples()
    monkeypatch.setattr(samples.processor, "world_pixels", lambda image: torch.empty(0, 3, 16, 16))
    with pytest.raises(ValueError, match="no world frames, expected one a prompt: the images never reach"):
        audited.run(audited.model(), samples)


def test_a_projector_of_zeros(audited):
    model = audited.model()
    with torch.no_grad():
        for parameter in model.cosmos_encoder.projector.parameters():
            parameter.zero_()
    (error,) = audited.run(model).errors
    assert error.startswith("zeroed, mean, shuffled, noise: found the same inputs as in the real arm")
    assert "the projector's output is 0 everywhere" in error


def test_a_projector_that_ignores_its_input(audited):
    model = audited.model()
    with torch.no_grad():
        model.cosmos_encoder.projector.layers[0].weight.zero_()
        torch.nn.init.normal_(model.cosmos_encoder.projector.layers[0].bias)
    (error,) = audited.run(model).errors
    assert "shuffled: found the same inputs as in the real arm" in error
    assert "the projector makes the same world tokens of 7 different frames" in error


def test_a_world_encoder_that_ignores_its_input(audited):
    model = audited.model()
    with torch.no_grad():
        model.cosmos_encoder.vae.quant_conv.weight.zero_()
    (error,) = audited.run(model).errors
    assert "the world encoder makes the same latent of 7 different frames" in error


def test_pictures_that_are_all_the_same(audited, one_picture):
    (error,) = audited.run(audited.model(), audited.samples(rows=one_picture)).errors
    assert "given the same frame in every sample; the images are missing or blank" in error


def but_one(processor, name: str, blank):
    """The processor's method, for which every picture but the first one it sees is blank."""
    original, first = getattr(processor, name), []

    def pixels(image):
        if image is None:
            return original(None)
        first.append(image.tobytes())
        return original(image) if first[-1] == first[0] else blank(original, image)

    return pixels


def test_pictures_that_are_mostly_the_same(audited, monkeypatch):
    """What two exchanged samples of seven show is not said of all."""
    samples = audited.samples()
    mostly = but_one(samples.processor, "world_pixels", lambda original, image: torch.zeros_like(original(image)))
    monkeypatch.setattr(samples.processor, "world_pixels", mostly)
    (error,) = audited.run(audited.model(), samples).errors
    assert error.startswith("shuffled: found other world tokens than in the real arm for 2 of 7 questions only")
    assert "6 of 7 frames are one and the same picture" in error


def test_pictures_that_are_mostly_grey(audited, monkeypatch):
    samples = audited.samples()
    grey = Image.new("RGB", (64, 64), GREY)
    mostly = but_one(samples.processor, "pixels", lambda original, image: original(grey))
    monkeypatch.setattr(samples.processor, "pixels", mostly)
    (error,) = audited.run(audited.model(), samples).errors
    assert error.startswith("image_removed: found 6 of 7 pictures that are plain grey already, expected at most 10 %")


def test_world_tokens_that_are_as_good_as_constant(audited):
    model = audited.model()
    with torch.no_grad():
        model.cosmos_encoder.projector.layers[-1].weight.mul_(1e-2)
        torch.nn.init.normal_(model.cosmos_encoder.projector.layers[-1].bias)
    found = audited.run(model)
    assert 0 < found.loudness.world_varying < LEAST_VARYING
    (error,) = found.errors
    assert error.startswith("shuffled: found world tokens that differ between samples by 0.")
    assert "the projector's bias drowns its input" in error


def test_faint_tokens_that_a_model_relies_on_are_no_fault(findings):
    """And fewer different tokens than frames are one."""
    groups = [SimpleNamespace(frame_hashes=tuple("abcdefg"))]
    for world, distinct, expected in (
        ("not decided", 7, "0.1 % of"),
        ("relies", 7, None),
        ("relies", 6, "found 6 diff"),
    ):
        loud = replace(findings.loudness, world_varying=0.001, distinct_world=distinct)
        verdict = replace(findings.verdict, world=world)
        errors = disconnections(findings.results, groups, loudness=loud, mass=findings.mass, verdict=verdict)
        assert len(errors) == (expected is not None)
        assert expected is None or expected in errors[0]


def test_a_forward_that_does_not_read_the_world(audited, monkeypatch):
    """World tokens are made, and then overwritten by zeros on their way into the sequence."""

    def fuse(model, input_ids, types, **seen):
        embeds, num_images = original(model, input_ids, types, **seen)
        return torch.where((types == 2)[..., None], 0.0, embeds), num_images

    original = theworld.fuse
    monkeypatch.setattr(theworld, "fuse", fuse)
    errors = audited.run(audited.model()).errors
    assert len(errors) == 1
    assert errors[0].startswith("zeroed, mean, shuffled, noise: found the very logits of the real arm, bit for bit")
    assert "does not put the world branch's tokens into the sequence" in errors[0]


def test_world_tokens_that_are_blocked_already(audited, monkeypatch):
    model = audited.model()
    original = type(model)._masks

    def masks(self, document_ids, types, **options):
        made = original(self, document_ids, types, **options)
        return Intervention(blocked=types == 2).masked(made, cache=None, new_tokens=0)

    monkeypatch.setattr(type(model), "_masks", masks)
    (error,) = audited.run(model).errors
    assert error.startswith(f"{', '.join(WORLD_ARMS)}: found the very logits")
    assert "the world tokens are blocked already" in error


def test_windows_that_end_before_the_world(audited, tmp_path):
    write_tiny_base(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"sliding_window": 256', '"sliding_window": 8'))
    audited = type(audited)(base=str(tmp_path), rows=audited.rows, images=audited.images)
    errors = audited.run(audited.model()).errors
    assert "beyond the sliding window of every layer" in errors[0]
    assert errors[1].startswith("image_removed: found the very logits")


def test_a_vision_branch_that_is_not_read(audited):
    model = audited.model()
    with torch.no_grad():
        model.gemma.model.multi_modal_projector.mm_input_projection_weight.zero_()
    (error,) = audited.run(model).errors
    assert error.startswith("image_removed: found the very logits of the real arm")

"""Each arm gives the model exactly what its description says."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theworld.evaluation.audit.arms import ARMS, REAL, WORLD_ARMS, Arms, Group, derangement, rms
from theworld.types import TokenType


@given(st.lists(st.integers(1, 6), min_size=2, max_size=12), st.integers(0, 99))
def test_a_derangement_takes_every_sample_to_another_image(sizes, seed):
    images = [f"image-{number}" for number, size in enumerate(sizes) for _ in range(size)]
    if max(sizes) > len(images) // 2:
        with pytest.raises(ValueError, match="expected at most half"):
            derangement(images, seed=seed)
        return
    partners = derangement(images, seed=seed)
    assert sorted(partners.tolist()) == list(range(len(images)))
    assert all(images[own] != images[other] for own, other in enumerate(partners.tolist()))


def test_a_derangement_depends_on_the_seed_alone():
    images = [str(number // 2) for number in range(20)]
    assert derangement(images, seed=1).tolist() == derangement(images, seed=1).tolist()
    assert derangement(images, seed=1).tolist() != derangement(images, seed=2).tolist()


@pytest.fixture(scope="module")
def model(audited):
    return audited.model()


@pytest.fixture(scope="module")
def groups(audited, model):
    from theworld.data.samples import Prompts
    from theworld.evaluation.audit.findings import Settings
    from theworld.evaluation.audit.run import _Auditor

    samples = audited.samples()
    auditor = _Auditor(model, samples, Settings(batch_size=3, max_new_tokens=2))
    prompts = Prompts(samples, batch_size=3)
    made: list[Group] = []
    for number in range(len(prompts)):
        made.append(auditor.real(prompts[number], first=sum(len(group.texts) for group in made)))
    return made


@pytest.fixture(scope="module")
def arms(model, groups):
    return Arms(model, groups, blank_features=torch.zeros_like(groups[0].image_features[:1]), seed=3)


@pytest.fixture(scope="module")
def real(arms, groups):
    """float[n, N, D]"""
    return torch.cat([arms.intervention(REAL, group).world_tokens for group in groups])


def tokens(arms, groups, arm):
    return torch.cat([arms.intervention(arm, group).world_tokens for group in groups])


def test_real_is_what_the_model_makes_of_the_frames(audited, model, real):
    samples = audited.samples()
    frames = torch.cat([samples.prompt(number).world_pixel_values for number in range(len(samples))])
    with torch.no_grad():
        torch.testing.assert_close(real, model.cosmos_encoder(frames), atol=1e-5, rtol=0)


def test_zeroed_mean_and_shuffled(arms, groups, real):
    assert not tokens(arms, groups, "zeroed").any()
    torch.testing.assert_close(tokens(arms, groups, "mean"), real.mean(0, keepdim=True).expand_as(real))
    torch.testing.assert_close(tokens(arms, groups, "shuffled"), real[arms.partners], atol=1e-5, rtol=0)
    assert not torch.equal(real[arms.partners], real)


def test_noise_has_each_tokens_rms_and_depends_on_seed_and_sample_alone(arms, groups, real):
    noise = tokens(arms, groups, "noise")
    torch.testing.assert_close(rms(noise, dim=-1), rms(real, dim=-1))
    for sample in (0, 5):
        drawn = torch.randn(real[0].shape, generator=torch.Generator().manual_seed((3 << 32) + sample))
        assert torch.nn.functional.cosine_similarity(noise[sample].flatten(), drawn.flatten(), dim=0) > 0.9
    assert len({round(float(value), 6) for value in noise.flatten()}) > noise.numel() // 2
    assert abs(float((noise.flatten() * real.flatten()).mean())) < 0.5 * float(rms(real)) ** 2


def test_blocked_and_removed(arms, groups):
    group = groups[0]
    is_world = group.prompts.batch.token_type_ids == TokenType.WORLD
    assert torch.equal(arms.intervention("blocked", group).blocked, is_world)
    assert torch.equal(arms.intervention("both_removed", group).blocked, is_world)
    assert not arms.intervention("image_removed", group).image_features.any()
    assert torch.equal(arms.intervention("blocked", group).image_features, group.image_features)
    assert arms.intervention("image_removed", group).blocked is None


def test_every_arm_changes_every_sample_of_different_pictures(arms, groups):
    changed = {arm: Counter(c for group in groups for c in arms.changes(arm, group)) for arm in ARMS}
    assert changed.pop(REAL) == Counter({False: 7})
    assert all(found == Counter({True: 7}) for found in changed.values()), changed
    assert set(WORLD_ARMS) < set(ARMS)

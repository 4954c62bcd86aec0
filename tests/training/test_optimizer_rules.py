"""What follows from the table of groups: what trains, its precision, and what decays."""

from __future__ import annotations

import pytest
import torch

from theworld.models.parameter_groups import GROUPS, parameter_groups
from theworld.models.theworld import TheWorld
from theworld.training.optimizer_rules import optimizer_param_groups, promote, set_trainable, trainable_counts


@pytest.fixture
def model(base) -> TheWorld:
    return TheWorld.from_pretrained(base, world_image_size=16, dtype=torch.bfloat16)


def test_a_model_without_a_world_branch_cannot_train_it(base):
    model = TheWorld.from_pretrained(base, enable_world=False)
    with pytest.raises(
        ValueError, match="found world_projector among the groups to train, expected some of vision, la"
    ):
        set_trainable(model, ["world_projector", "language"])


def test_set_trainable_is_exact_and_drops_old_gradients(model):
    set_trainable(model, ["vision"])
    vision = parameter_groups(model)["vision"]
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {n for n, _ in vision}
    assert trainable_counts(model) == dict.fromkeys(GROUPS, 0) | {"vision": model.parameter_counts()["vision"]}
    vision[0][1].grad = torch.ones_like(vision[0][1])
    set_trainable(model, ["world_projector"])
    assert vision[0][1].grad is None
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in parameter_groups(model)["world_projector"]
    }


def test_promote_casts_its_groups_only_and_keeps_the_values(model):
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    promote(model, ["world_projector", "language"])
    for group, members in parameter_groups(model).items():
        for name, parameter in members:
            wide = group in ("world_projector", "language")
            assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name
            assert torch.equal(parameter.bfloat16(), before.pop(name))
    assert not before
    assert model.gemma.lm_head.weight is model.get_input_embeddings().weight


def test_matrices_decay_and_norms_biases_and_embeddings_do_not(model):
    groups = optimizer_param_groups(model, groups=("world_projector", "world_encoder", "language"), weight_decay=0.3)
    assert [(g["group"], g["weight_decay"]) for g in groups] == [
        ("world_projector", 0.3),
        ("world_projector", 0.0),
        ("world_encoder", 0.3),
        ("world_encoder", 0.0),
        ("language", 0.3),
        ("language", 0.0),
    ]
    names = [[name for name, _ in g["params"]] for g in groups]
    prefix = "cosmos_encoder.projector.layers."
    assert names[0] == [f"{prefix}0.weight", f"{prefix}2.weight"]
    assert names[1] == [f"{prefix}0.bias", f"{prefix}2.bias"]
    assert any("gamma" in name for name in names[3])  # the VAE stores a norm's weight as (C, 1, 1, 1)
    assert not any("gamma" in name for name in names[2])
    assert "gemma.model.language_model.embed_tokens.weight" in names[5]
    assert all("norm" in name or "embed" in name for name in names[5])
    expected = {n for g, ps in parameter_groups(model).items() if g != "vision" for n, _ in ps}
    assert sorted(sum(names, [])) == sorted(expected)

"""One table decides what trains: it covers every parameter once, and says so when it does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from theworld.models.theworld import TheWorld, parameter_group
from theworld.training import optimizer_rules
from theworld.training.optimizer_rules import (
    GROUP_RULES,
    optimizer_param_groups,
    parameter_groups,
    promote,
    set_trainable,
    trainable_counts,
)
from theworld.training.stages import GROUPS


@pytest.fixture
def model(base) -> TheWorld:
    return TheWorld.from_pretrained(base, world_image_size=16, dtype=torch.bfloat16)


def test_every_parameter_is_in_one_group_the_one_the_model_names(model):
    groups = parameter_groups(model)
    assert tuple(groups) == GROUPS
    found = {name: group for group, parameters in groups.items() for name, _ in parameters}
    assert found == {name: parameter_group(name) for name, _ in model.named_parameters()}
    assert {g: sum(p.numel() for _, p in ps) for g, ps in groups.items()} == model.parameter_counts()


def test_a_tied_weight_counts_once(model):
    assert model.gemma.lm_head.weight is model.get_input_embeddings().weight
    names = [name for name, _ in parameter_groups(model)["language"]]
    assert [n for n in names if "embed_tokens" in n or "lm_head" in n] == [
        "gemma.model.language_model.embed_tokens.weight"
    ]


def test_a_model_without_a_world_branch_has_no_world_groups(base):
    model = TheWorld.from_pretrained(base, enable_world=False)
    assert tuple(parameter_groups(model)) == ("vision", "language")
    with pytest.raises(
        ValueError, match="found world_projector among the groups to train, expected some of vision, la"
    ):
        set_trainable(model, ["world_projector", "language"])


def test_an_uncovered_parameter_is_an_error(model):
    model.gemma.model.depth_tower = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"found parameter gemma\.model\.depth_tower\.weight, covered by no rule"):
        parameter_groups(model)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((*GROUP_RULES, (r"depth\.", "depth")), r"found no parameter for the rule 'depth\\\\.' \(depth\)"),
        (
            ((r"gemma\.lm_head\.", "head"), *GROUP_RULES),
            r"found gemma\.lm_head\.weight, a tied weight, in the groups language and head",
        ),
    ],
)
def test_a_bad_table_is_an_error(model, monkeypatch, rules, message):
    monkeypatch.setattr(optimizer_rules, "GROUP_RULES", rules)
    with pytest.raises(ValueError, match=message):
        parameter_groups(model)


def test_the_first_rule_that_matches_wins(model, monkeypatch):
    first = (r"gemma\.model\.vision_tower\.", "language")
    monkeypatch.setattr(optimizer_rules, "GROUP_RULES", (first, *GROUP_RULES))
    names = [name for name, _ in parameter_groups(model)["vision"]]
    assert names
    assert all("multi_modal_projector" in name for name in names)


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
    for name, parameter in model.named_parameters():
        wide = parameter_group(name) in ("world_projector", "language")
        assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name
        assert torch.equal(parameter.bfloat16(), before[name])
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

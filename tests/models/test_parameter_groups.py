"""One table decides what belongs together: it covers every parameter once, and says so when it does not."""

from __future__ import annotations

import pytest
from torch import nn

from tests.tiny import make_model
from theworld.models import parameter_groups as table
from theworld.models.parameter_groups import GROUP_RULES, GROUPS, parameter_groups
from theworld.models.theworld import TheWorld


@pytest.fixture
def model() -> TheWorld:
    return make_model()


def test_every_parameter_is_in_one_group(model):
    groups = parameter_groups(model)
    assert tuple(groups) == GROUPS == ("world_projector", "world_encoder", "vision", "language")
    named = [(name, parameter) for members in groups.values() for name, parameter in members]
    assert sorted(name for name, _ in named) == sorted(name for name, _ in model.named_parameters())
    assert all(parameter is model.get_parameter(name) for name, parameter in named)
    parts = {
        "world_projector": [model.cosmos_encoder.projector],
        "world_encoder": [model.cosmos_encoder.vae],
        "vision": [model.gemma.model.vision_tower, model.gemma.model.multi_modal_projector],
        "language": [model.gemma.model.language_model],  # the head is tied to its embedding
    }
    assert model.parameter_counts() == {
        group: sum(p.numel() for part in modules for p in part.parameters()) for group, modules in parts.items()
    }


def test_a_tied_weight_counts_once(model):
    assert model.gemma.lm_head.weight is model.get_input_embeddings().weight
    names = [name for name, _ in parameter_groups(model)["language"]]
    assert [n for n in names if "embed_tokens" in n or "lm_head" in n] == [
        "gemma.model.language_model.embed_tokens.weight"
    ]


def test_a_model_without_a_world_branch_has_no_world_groups():
    model = make_model(enable_world=False)
    assert tuple(parameter_groups(model)) == tuple(model.parameter_counts()) == ("vision", "language")


def test_an_uncovered_parameter_is_an_error(model):
    model.gemma.model.depth_tower = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"found parameter gemma\.model\.depth_tower\.weight, covered by no rule"):
        parameter_groups(model)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((*GROUP_RULES, (r"depth\.", "depth")), r"found no parameter for the rule 'depth\\\\.' \(depth\)"),
        # A second rule of a group that has parameters from its first one.
        ((*GROUP_RULES, (r"siglip\.", "vision")), r"found no parameter for the rule 'siglip\\\\.' \(vision\)"),
        (
            ((r"gemma\.lm_head\.", "head"), *GROUP_RULES),
            r"found gemma\.lm_head\.weight, a tied weight, in the groups language and head",
        ),
    ],
)
def test_a_bad_table_is_an_error(model, monkeypatch, rules, message):
    monkeypatch.setattr(table, "GROUP_RULES", rules)
    with pytest.raises(ValueError, match=message):
        parameter_groups(model)


def test_the_first_rule_that_matches_wins(model, monkeypatch):
    first = (r"gemma\.model\.vision_tower\.", "language")
    monkeypatch.setattr(table, "GROUP_RULES", (first, *GROUP_RULES))
    names = [name for name, _ in parameter_groups(model)["vision"]]
    assert names
    assert all("multi_modal_projector" in name for name in names)

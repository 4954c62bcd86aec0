"""The moments of a forward and a backward pass, on a real tiny model."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import inputs, make_model
from theworld.data.packing.collator import pack
from theworld.models.execution import set_execution
from theworld.profiling.places import GLUE, HEAD, LOOP, Place, Places, followed
from theworld.training.optimizer_rules import set_trainable
from theworld.types import IGNORE_INDEX, Sample

LAYERS = [f"gemma.model.language_model.layers.{number}" for number in range(6)]
VISION = [f"gemma.model.vision_tower.encoder.layers.{number}" for number in range(2)]


def make_batch(model, words: int = 12):
    """One sample with an image and a frame: [BOS][SOW] world [EOW] text, image, text."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(20, 60, (words,), generator=generator)
    image, world = torch.full((4,), 8), torch.full((4,), 10)
    ids = torch.cat([torch.tensor([2, 9]), world, torch.tensor([11]), text[:4], image, text[4:]])
    sample = Sample(
        id="one",
        input_ids=ids,
        labels=torch.where(torch.arange(len(ids)) > 18, ids, IGNORE_INDEX),
        token_type_ids=model.token_types(ids[None])[0],
        pixel_values=torch.randn(1, 3, 16, 16, generator=generator),
        world_pixel_values=torch.rand(1, 3, 16, 16, generator=generator),
    )
    return pack([sample], budget=len(ids), pad_token_id=0, step_target_tokens=1)


@pytest.fixture
def noticed():
    """One step of a model with these groups training; the places in their order."""

    def step(*groups: str, **execution: object) -> list[Place]:
        model = make_model().train()
        set_trainable(model, groups)
        if execution:
            set_execution(model, **execution)
        found: list[Place] = []
        places = Places(model, found.append)
        places.attach()
        places.begin()
        with places.within(Place("forward", GLUE)):
            loss = model(**inputs(make_batch(model), labels=True)).loss_sum
        with places.within(Place("backward", HEAD)):
            loss.backward()
        places.detach()
        count = len(found)
        model(**inputs(make_batch(model), labels=True)).loss_sum.backward()
        assert len(found) == count  # nothing is left behind
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        return found

    return step


def parts(found: list[Place], phase: str) -> list[str]:
    """Parts of a phase in their order, without the glue between them and repeats."""
    names = [place.part for place in found if place.phase == phase and place.part != GLUE]
    return [name for number, name in enumerate(names) if number == 0 or names[number - 1] != name]


FORWARD = [
    "gemma.model.vision_tower.embeddings",
    *VISION,
    "gemma.model.multi_modal_projector.mm_soft_emb_norm",
    "gemma.model.multi_modal_projector",
    "cosmos_encoder.vae",
    "cosmos_encoder.projector",
    "gemma.model.language_model.embed_tokens",
    *LAYERS,
    "gemma.model.language_model.norm",
    HEAD,
]


def test_a_step_of_the_projector(noticed):
    """Frozen towers have no backward pass; the projector's comes last."""
    found = noticed("world_projector")
    assert parts(found, "forward") == FORWARD
    backward = [HEAD, "gemma.model.language_model.norm", *LAYERS[::-1], "cosmos_encoder.projector"]
    assert parts(found, "backward") == backward
    assert found[0] == found[-1] == LOOP
    norm = found.index(Place("forward", "gemma.model.language_model.norm"))
    assert found[norm + 1] == Place("forward", HEAD)  # while the model's own forward still runs


def test_a_step_of_everything(noticed):
    found = noticed("world_projector", "vision", "language")
    backward = parts(found, "backward")
    assert backward[: 2 + len(LAYERS)] == [HEAD, "gemma.model.language_model.norm", *LAYERS[::-1]]
    rest = ["cosmos_encoder.projector", *VISION[::-1], "gemma.model.vision_tower.embeddings"]
    assert [name for name in backward if name in rest] == rest
    assert "gemma.model.language_model.embed_tokens" in backward


def test_behind_a_layers_backward_is_not_the_layer(noticed):
    """What joins text, image and world tokens has a backward pass as well: the glue's."""
    found = [place for place in noticed("world_projector") if place.phase == "backward"]
    first = found.index(Place("backward", LAYERS[0]))
    assert found[first + 1 : first + 3] == [Place("backward", GLUE), Place("backward", "cosmos_encoder.projector")]


def test_recomputed_layers_are_at_the_same_places(noticed):
    assert noticed("world_projector", compiled=False, recompute="full") == noticed("world_projector")


@pytest.mark.slow
def test_compiled_layers_are_at_the_same_places(noticed):
    """Hooks stand around what is compiled, where every step calls them."""
    assert noticed("world_projector", compiled=True, recompute="none") == noticed("world_projector")


@pytest.mark.slow
def test_nothing_is_compiled_again():
    """Neither when hooks come nor when they go. Control: a row of another length is."""
    model = make_model().train()
    set_trainable(model, ["world_projector"])
    set_execution(model, compiled=True, recompute="none")
    given, places = inputs(make_batch(model), labels=True), Places(model, lambda place: None)
    for _ in range(2):  # gradients are None in the first step
        model(**given).loss_sum.backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        places.attach()
        places.begin()
        model(**given).loss_sum.backward()
        places.detach()
        model(**given).loss_sum.backward()
        with pytest.raises(torch._dynamo.exc.RecompileError):
            model(**inputs(make_batch(model, words=15), labels=True))


def test_every_parameter_is_in_one_followed_module():
    """But for the head's (it is the embedding's weight) and those that the glue uses itself."""
    model = make_model()
    modules = dict(followed(model))
    owners = [parameter for module in modules.values() for parameter in module.parameters()]
    assert len({id(p) for p in owners}) == len(owners) - 1  # the tied weight, twice
    missed = {name for name, p in model.named_parameters() if not any(p is owned for owned in owners)}
    assert missed == {
        "gemma.model.multi_modal_projector.mm_input_projection_weight",
        "gemma.model.vision_tower.post_layernorm.weight",
        "gemma.model.vision_tower.post_layernorm.bias",
    }

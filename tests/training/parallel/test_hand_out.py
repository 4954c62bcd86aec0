"""A base that one process reads is on every device what it is where each process reads it, bit for bit."""

from __future__ import annotations

import pytest
import torch

from tests.training.conftest import DATA, MODEL
from tests.training.parallel.handed_out import BUFFER, DIVIDED, EMBEDDING, FROZEN, damaged, set_up
from tests.training.ranks import Ranks
from theworld.models.theworld import TheWorld
from theworld.training.parallel.hand_out import digest


@pytest.fixture(scope="module")
def recorded(base, osd, tmp_path_factory):
    """Set up `world_size` processes; gives what each of them recorded."""

    def start(world_size: int, **options: bool) -> list[dict]:
        folder = tmp_path_factory.mktemp("ranks")
        model = {"base": base} | MODEL | {"dtype": "bfloat16"}
        data = {"base": base} | DATA | osd
        Ranks(set_up, world_size=world_size, folder=folder, data=data, model=model, **options).wait()
        return [torch.load(folder / f"rank-{rank}.pt") for rank in range(world_size)]

    return start


def differing(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    assert found.keys() == expected.keys()
    return [n for n, t in expected.items() if digest(found[n]) != digest(t) or not torch.equal(found[n], t)]


@pytest.mark.parametrize(
    ("world_size", "options"),
    [(2, {}), (3, {"shard_frozen": True}), (2, {"fit": False})],
    ids=["fit", "uneven rows of everything", "validate"],
)
def test_every_tensor_is_as_every_process_would_have_read_it(recorded, world_size, options):
    (expected,) = recorded(1, **{key: value for key, value in options.items() if key == "fit"})
    fit, frozen = options.get("fit", True), options.get("shard_frozen", False)
    assert BUFFER in expected["buffers"]
    for found in recorded(world_size, **options):
        assert differing(found["parameters"], expected["parameters"]) == []
        assert differing(found["buffers"], expected["buffers"]) == []
        for same in ("trains", "tied", "config", "training", "random"):
            assert str(found[same]) == str(expected[same]), same
        assert torch.equal(found["random"], expected["random"])
        assert found["tied"]
        assert [n in found["divided"] for n in (EMBEDDING, DIVIDED, FROZEN)] == [fit, fit, fit and frozen]
    types = {tensor.dtype for tensor in expected["parameters"].values()}
    assert types == ({torch.float32, torch.bfloat16} if fit else {torch.bfloat16})
    name, tensor = next(iter(expected["parameters"].items()))  # control: the smallest difference is one
    other = tensor.clone()
    other.view(-1)[-1:].view(torch.uint8)[0] ^= 1
    assert differing({name: other}, {name: tensor}) == [name]


def test_what_other_processes_are_given_cannot_be_loaded(tmp_path):
    """The control of `set_up`, where they get by with it."""
    with pytest.raises((OSError, ValueError), match="absent"):
        TheWorld.from_pretrained(str(tmp_path / "absent"))


def test_a_difference_on_one_process_stops_all(base, tmp_path):
    Ranks(damaged, world_size=2, folder=tmp_path, base=base).wait()
    first, last = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2))
    absent = [found.pop("absent") for found in (first, last)]
    assert first == last
    named = {"frozen": FROZEN, "divided": DIVIDED, "buffer": BUFFER, "order": DIVIDED}
    named |= {"meta": "cosmos_encoder.projector.target_rms", "untied": "gemma.lm_head.weight"}
    assert {"nothing", "undone", *named} == first.keys()
    assert (first["nothing"], first["undone"]) == ("", "")
    for damage, name in named.items():
        assert first[damage].startswith(f"ValueError: found on process 1 {name}"), first[damage]
    assert "absent" in absent[0]
    assert absent[1].startswith("ValueError: found that process 0 could not load the model")

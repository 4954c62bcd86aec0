"""One process, DDP and FSDP2 are the same run, through all stages, and each goes on with what another one saved.

In double precision, with clipping that bites in every step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import WORLD_TOKENS, osd_row, write_osd
from tests.training.conftest import DATA, MODEL
from tests.training.parallel.staged_run import CLIP, STEPS, run_stages
from tests.training.ranks import Ranks
from theworld.training.checkpoints.directory import MANIFEST
from theworld.training.checkpoints.plugin import CheckpointDirectories

ONE, DDP, FSDP2 = ("auto", 1), ("ddp_find_unused_parameters_true", 2), ("fsdp2", 2)


@pytest.fixture(scope="module")
def run(base, tmp_path_factory) -> Callable[..., Path]:
    """Train with (strategy, processes); gives the folder with `record.pt`, `saved` and `export`."""
    rows = [osd_row(i, turns=1 + i % 2, answer=("Yes", "No")[i % 2] + "." * (1 + i % 3)) for i in range(26)]
    path, images = write_osd(tmp_path_factory.mktemp("rows"), rows)
    data = {"base": base} | DATA | {"train_path": str(path), "train_images": str(images)}

    def start(how: tuple[str, int], **options: object) -> Path:
        folder = tmp_path_factory.mktemp(how[0])
        arguments = {"data": data, "model": start.model} | options
        Ranks(run_stages, world_size=how[1], folder=folder, strategy=how[0], **arguments).wait()
        return folder

    start.model, start.data = {"base": base} | MODEL, data
    return start


@pytest.fixture(scope="module")
def whole(run) -> dict[tuple[str, int], Path]:
    """Uninterrupted runs."""
    return {how: run(how) for how in (ONE, FSDP2)}


def record(folder: Path) -> dict[str, dict]:
    return torch.load(folder / "record.pt")


def assert_same(found: Path, expected: Path) -> None:
    """Losses, norms and final weights, as far as the run went on by itself."""
    here, there = record(found), record(expected)
    for step, loss in here["losses"].items():
        assert loss == pytest.approx(there["losses"][step], rel=1e-12), step
        assert here["norms"][step] == pytest.approx(there["norms"][step], rel=1e-12), step
    assert here["weights"].keys() == there["weights"].keys()
    for name, weight in there["weights"].items():
        torch.testing.assert_close(here["weights"][name], weight, rtol=1e-12, atol=1e-12, msg=name)


def test_fsdp2_is_the_run_of_one_process(whole):
    expected = record(whole[ONE])
    assert list(expected["losses"]) == list(range(STEPS))
    assert all(norm > 2 * CLIP for norm in expected["norms"].values())
    assert_same(whole[FSDP2], whole[ONE])


@pytest.mark.slow
def test_future_frames_train_as_in_one_process(run):
    """Their embedding is divided by rows, of which most have no frame, and gathered for checkpoints and exports."""
    frames = {"model": run.model | {"num_world_steps": 2, "weight_decay": 0.1}}
    frames["data"] = run.data | {"num_world_tokens": 3 * WORLD_TOKENS}
    one, divided = run(ONE, **frames), run(FSDP2, **frames)
    assert_same(divided, one)
    embedding = record(one)["weights"]["cosmos_encoder.projector.temporal_embedding"]
    assert embedding[:2].abs().amax(dim=1).min() > 1e-3
    assert not embedding[2:].any()
    exports = [load_file(folder / "export" / "language" / "model.safetensors") for folder in (one, divided)]
    found = [weights["cosmos_encoder.projector.temporal_embedding"] for weights in exports]
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)
    assert found[0].shape == (16, 16)
    resumed = run(ONE, **frames, ckpt_path=str(divided / "saved" / "step=3.ckpt"))
    assert_same(resumed, one)


def test_half_precision_keeps_whole_masters(whole, run):
    """Groups that are frozen at first add up in float32 too, and the run is the same but for rounding."""
    half = {"model": run.model | {"dtype": "bfloat16"}, "double": False, "precision": "bf16-mixed"}
    found, expected = record(run(FSDP2, **half)), record(whole[ONE])
    for step, loss in expected["losses"].items():
        assert found["losses"][step] == pytest.approx(loss, rel=1e-2), step
    types = {name: kind for name, kind in found["dtypes"].items() if "cosmos_encoder.vae" not in name}
    assert set(types.values()) == {"torch.float32"}
    assert set(found["dtypes"].values()) == {"torch.float32", "torch.bfloat16"}  # what no stage trains stays as it was


def test_what_fsdp2_exports_is_what_one_process_exports(whole):
    for stage in ("projection", "vision", "language"):
        folders = [whole[how] / "export" / stage for how in (ONE, FSDP2)]
        one, divided = (load_file(folder / "model.safetensors") for folder in folders)
        assert one.keys() == divided.keys()
        for name, weight in one.items():
            torch.testing.assert_close(divided[name], weight, rtol=1e-6, atol=1e-6, msg=name)
        names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
        assert names[0] == names[1]
        assert (folders[0] / "config.json").read_text() == (folders[1] / "config.json").read_text()


def test_what_two_processes_saved_goes_on_in_one(whole, run):
    """In the middle of the vision stage, whose new moments are a step old."""
    resumed = run(ONE, ckpt_path=str(whole[FSDP2] / "saved" / "step=3.ckpt"))
    assert list(record(resumed)["losses"]) == [3, 4, 5, 6]
    assert_same(resumed, whole[ONE])


@pytest.mark.slow
def test_what_one_process_saved_goes_on_in_two(whole, run):
    resumed = run(FSDP2, ckpt_path=str(whole[ONE] / "saved" / "step=3.ckpt"))
    assert list(record(resumed)["losses"]) == [3, 4, 5, 6]
    assert_same(resumed, whole[ONE])


@pytest.mark.slow
def test_ddp_is_the_same_run(whole, run):
    ddp = run(DDP)
    assert_same(ddp, whole[ONE])
    assert_same(run(FSDP2, ckpt_path=str(ddp / "saved" / "step=5.ckpt")), whole[ONE])
    assert_same(run(DDP, ckpt_path=str(whole[FSDP2] / "saved" / "step=5.ckpt")), whole[ONE])


@pytest.mark.slow
def test_fsdp2_goes_on_with_its_own_and_works_alone(whole, run):
    assert_same(run(FSDP2, ckpt_path=str(whole[FSDP2] / "saved" / "step=4.ckpt")), whole[ONE])
    alone = run(("fsdp2", 1), ckpt_path=str(whole[FSDP2] / "saved" / "step=2.ckpt"))
    assert_same(alone, whole[ONE])


def test_a_checkpoint_of_two_processes_holds_each_row_once(whole):
    """Read with the format's own library, it is what one process saved."""
    folder = whole[FSDP2] / "saved" / "step=7.ckpt"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.pt",
        MANIFEST,
        "rows-0-of-2.safetensors",
        "rows-1-of-2.safetensors",
    ]
    parts = [load_file(folder / f"rows-{rank}-of-2.safetensors") for rank in range(2)]
    one = CheckpointDirectories().load_checkpoint(whole[ONE] / "saved" / "step=7.ckpt")
    for name, weight in one["state_dict"].items():
        rows = torch.cat([part[f"/state_dict/{name}"] for part in parts])
        torch.testing.assert_close(rows, weight, rtol=1e-12, atol=1e-12, msg=name)
    moments = one["optimizer_states"][0]["state"]
    assert len(moments) == len(one["state_dict"])
    for number, state in moments.items():
        rows = torch.cat([part[f"/optimizer_states/0/state/{number}/exp_avg"] for part in parts])
        torch.testing.assert_close(rows, state["exp_avg"], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_part_is_refused(whole, tmp_path, damage):
    folder = tmp_path / "step=7.ckpt"
    shutil.copytree(whole[FSDP2] / "saved" / "step=7.ckpt", folder)
    CheckpointDirectories().load_checkpoint(folder)  # control
    part = folder / "rows-1-of-2.safetensors"
    content = bytearray(part.read_bytes())
    content[-3] ^= 1
    part.unlink() if damage == "missing" else part.write_bytes(content)
    with pytest.raises(ValueError, match=f"found sha256|expected .*{part.name}"):
        CheckpointDirectories().load_checkpoint(folder)

"""A save that ends at any call it makes of the file system: what was good stays good, what is torn is refused."""

from __future__ import annotations

import itertools
import os

import pytest
import torch

from tests.training.checkpoints.faults import CALLS, Killed, disk_full, fail_once
from theworld.training.checkpoints import directory
from theworld.training.checkpoints.newest import name_latest, newest_checkpoint
from theworld.training.checkpoints.plugin import CheckpointDirectories

IO = CheckpointDirectories()
FAULTS = {"kill": Killed, "full disk": disk_full}
SAME, OTHER = "step=1.ckpt", "step=2.ckpt"


def state(number: int) -> dict[str, object]:
    return {"global_step": number, "state_dict": {"weight": torch.full((50,), float(number))}}


def save(folder, name: str, number: int) -> None:
    IO.save_checkpoint(state(number), folder / name)
    name_latest(folder / name)


def number_in(path) -> int:
    """What was saved there; wholly the one or wholly the other."""
    found = IO.load_checkpoint(path)
    assert torch.equal(found["state_dict"]["weight"], state(found["global_step"])["state_dict"]["weight"])
    return found["global_step"]


def save_with_faults(folder, name: str, call: str, error) -> int:
    """Save number 2 as `name` after number 1, failing at every call in turn, and look at what is there after each."""
    for number in itertools.count():
        inside = folder / str(number)
        save(inside, SAME, 1)
        os.utime(inside / SAME, ns=(0, 0))  # long before
        with pytest.MonkeyPatch.context() as patch:
            failed = fail_once(patch, call, number, error)
            try:
                save(inside, name, 2)
            except (Killed, OSError):
                assert failed
        if not failed:
            return number
        path, skipped = newest_checkpoint(inside)
        assert skipped == []  # a draft is not even a candidate
        expected = {2} if (inside / name).exists() and name == OTHER else {1, 2}
        assert number_in(path) in expected
        for candidate in inside.glob("*.ckpt"):
            assert number_in(candidate) in (1, 2)
        directory.sweep(inside)
        assert not list(inside.glob(".*"))
        save(inside, name, 3)
        assert number_in(newest_checkpoint(inside)[0]) == 3
    raise AssertionError


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_a_save_that_ends_at_any_call(tmp_path, call, fault):
    places = {name: save_with_faults(tmp_path / name, name, call, FAULTS[fault]) for name in (SAME, OTHER)}
    assert places[SAME] > 0
    assert places[OTHER] > 0 or call.startswith("remove")  # nothing to remove where nothing lay


def test_everything_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A kill of the process cannot show that; a power cut would."""
    calls = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor):
        calls.append(("sync", os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path)))
        sync(descriptor)

    def replaced(source, target):
        calls.append(("replace", os.path.relpath(target, tmp_path)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    save(tmp_path, SAME, 1)
    draft = f".{SAME}.draft"
    assert calls == [
        ("sync", f"{draft}/checkpoint.pt"),
        ("sync", f"{draft}/.manifest.json.draft"),
        ("replace", f"{draft}/manifest.json"),
        ("sync", draft),
        ("replace", SAME),
        ("sync", "."),
        ("sync", ".LATEST.draft"),
        ("replace", "LATEST"),
        ("sync", "."),
    ]


def test_a_full_disk_leaves_no_draft(tmp_path, monkeypatch):
    """And says what it was: PyTorch's writer has an error of its own for it, without a reason."""
    save(tmp_path, SAME, 1)
    failed = fail_once(monkeypatch, "write", 3, disk_full)
    with pytest.raises(OSError, match="No space left on device"):
        save(tmp_path, OTHER, 2)
    assert failed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", SAME]


def test_in_place_of_a_directory_written_in_place(tmp_path, monkeypatch):
    """Positive control: without the draft the same kill leaves a torn checkpoint, and it is refused."""
    save(tmp_path, SAME, 1)
    os.utime(tmp_path / SAME, ns=(0, 0))
    monkeypatch.setattr(directory, "draft_of", lambda path: path)
    failed = fail_once(monkeypatch, "write", 3, Killed)
    with pytest.raises(Killed):
        save(tmp_path, OTHER, 2)
    assert failed
    with pytest.raises(ValueError, match=r"found no manifest\.json"):
        IO.load_checkpoint(tmp_path / OTHER)
    path, (reason,) = newest_checkpoint(tmp_path)
    assert path == tmp_path / SAME
    assert reason.startswith(f"{tmp_path / OTHER}: found no manifest.json")


def test_a_draft_of_a_killed_save_is_written_anew(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        fail_once(patch, "write", 3, Killed)
        with pytest.raises(Killed):
            save(tmp_path, SAME, 1)
    assert (tmp_path / f".{SAME}.draft").is_dir()
    assert newest_checkpoint(tmp_path) == (None, [])
    save(tmp_path, SAME, 2)
    assert number_in(tmp_path / SAME) == 2
    assert not (tmp_path / f".{SAME}.draft").exists()

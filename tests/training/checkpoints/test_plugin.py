"""What is written is what is read, and anything else is refused before it is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest
import torch

from theworld.training.checkpoints import plugin
from theworld.training.checkpoints.directory import MANIFEST, new_checkpoint
from theworld.training.checkpoints.plugin import CONTENT, CheckpointDirectories, check_space, tensor_bytes

IO = CheckpointDirectories()
STATE = {
    "global_step": 7,
    "state_dict": {"a": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), "b": torch.tensor(1e-45)},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(7.0)}}, "betas": (0.9, 0.999)}],
    "bfloat16": torch.tensor([1.0, float("nan"), -0.0], dtype=torch.bfloat16),
}


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "step=7.ckpt"
    IO.save_checkpoint(STATE, path)
    return path


@pytest.fixture
def never_unpickled(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("it was unpickled before it was verified")

    monkeypatch.setattr(torch, "load", refuse)


def test_what_was_saved_is_loaded_bit_for_bit(saved):
    found = IO.load_checkpoint(saved)
    assert found["global_step"] == 7
    assert found["optimizer_states"][0]["betas"] == (0.9, 0.999)
    assert torch.equal(found["optimizer_states"][0]["state"][0]["step"], torch.tensor(7.0))
    for name, tensor in STATE["state_dict"].items():
        assert torch.equal(found["state_dict"][name].view(torch.int32), tensor.view(torch.int32))
    assert torch.equal(found["bfloat16"].view(torch.int16), STATE["bfloat16"].view(torch.int16))


def test_the_manifest_says_what_lies_there(saved):
    manifest = json.loads((saved / MANIFEST).read_text())
    content = (saved / CONTENT).read_bytes()
    assert manifest["files"] == {CONTENT: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}


def test_a_flipped_bit_at_any_place_of_any_file_is_refused(saved, never_unpickled):
    content = bytearray((saved / CONTENT).read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    for place in range(0, len(content), 97):
        content[place] ^= 1
        (saved / CONTENT).write_bytes(content)
        with pytest.raises(ValueError, match=f"{CONTENT}: found sha256 [0-9a-f]{{64}}, expected {expected}"):
            IO.load_checkpoint(saved)
        content[place] ^= 1
    (saved / CONTENT).write_bytes(content)
    manifest = bytearray((saved / MANIFEST).read_bytes())
    digest = manifest.index(expected.encode())
    manifest[digest] ^= 1
    (saved / MANIFEST).write_bytes(manifest)
    with pytest.raises(ValueError, match="expected"):
        IO.load_checkpoint(saved)


def test_a_file_that_ends_early_is_refused(saved, never_unpickled):
    size = (saved / CONTENT).stat().st_size
    os.truncate(saved / CONTENT, size - 1)
    with pytest.raises(ValueError, match=f"found {size - 1} bytes, expected {size}"):
        IO.load_checkpoint(saved)


MANIFESTS = {
    "a file without end": '{"format": 1, "files": {"checkpoint.pt": {"bytes": 1e999, "sha256": "x"}}}',
    "empty": "",
    "cut off": '{"format": 1, "fil',
    "a list": "[]",
    "of another format": '{"format": 2, "files": {}}',
    "deep": "[" * 100_000,
    "without hashes": '{"format": 1, "files": {"checkpoint.pt": {}}}',
    "of no file": '{"format": 1, "files": {}}',
}


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_that_is_none_is_refused(saved, manifest, never_unpickled):
    (saved / MANIFEST).write_text(MANIFESTS[manifest])
    with pytest.raises(ValueError, match=r"manifest\.json: found .* expected a manifest of format 1"):
        IO.load_checkpoint(saved)


def test_files_too_few_or_too_many_are_refused(saved, never_unpickled):
    (saved / "more.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"found the files \['checkpoint.pt', 'more.pt'\], expected \['checkp"):
        IO.load_checkpoint(saved)
    (saved / "more.pt").unlink()
    (saved / CONTENT).rename(saved.parent / "elsewhere.pt")
    with pytest.raises(ValueError, match=r"found the files \[\], expected"):
        IO.load_checkpoint(saved)
    (saved / CONTENT).symlink_to(saved.parent / "elsewhere.pt")
    with pytest.raises(ValueError, match="found a link"):
        IO.load_checkpoint(saved)


@pytest.mark.parametrize("name", ["../outside.pt", "/outside.pt", "sub/../../outside.pt"])
def test_a_manifest_that_leaves_its_folder_is_refused(saved, tmp_path, never_unpickled, name):
    """Though the file it names is there, with the bytes and the hash it says."""
    outside = saved.parent / "outside.pt"
    shutil.copy(saved / CONTENT, outside)
    manifest = json.loads((saved / MANIFEST).read_text())
    path = str(outside) if name.startswith("/") else name
    manifest["files"][path] = manifest["files"][CONTENT]
    (saved / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"found the files \['checkpoint.pt'\], expected"):
        IO.load_checkpoint(saved)
    del manifest["files"][CONTENT]
    (saved / CONTENT).unlink()
    (saved / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"found the files \[\], expected"):
        IO.load_checkpoint(saved)


def test_a_manifest_that_is_a_link_is_refused(saved, tmp_path, never_unpickled):
    (saved / MANIFEST).rename(tmp_path / "elsewhere.json")
    (saved / MANIFEST).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ValueError, match=r"found no manifest\.json, expected one"):
        IO.load_checkpoint(saved)


def test_code_in_a_checkpoint_does_not_run(saved, tmp_path):
    """Not if only the file was changed, and not if the manifest was made to agree: then the hash cannot tell."""
    evil = tmp_path / "evil.pt"
    torch.save({"state_dict": Payload(tmp_path / "ran")}, evil)
    shutil.copy(evil, saved / CONTENT)
    with pytest.raises(ValueError, match="expected"):
        IO.load_checkpoint(saved)
    with new_checkpoint(tmp_path / "agreeing.ckpt") as draft, draft.open(CONTENT) as file:
        file.write(evil.read_bytes())
    for path in (tmp_path / "agreeing.ckpt", evil):
        with pytest.raises(ValueError, match="refused before any of its code ran"):
            IO.load_checkpoint(path)
    with pytest.raises(ValueError, match="found weights_only=False"):
        IO.load_checkpoint(evil, weights_only=False)
    assert not (tmp_path / "ran").exists()
    torch.load(evil, weights_only=False)
    assert (tmp_path / "ran").exists()  # control: elsewhere it would have run


def test_a_single_file_is_read_and_said_to_be_unverified(tmp_path, caplog):
    torch.save(STATE, tmp_path / "old.ckpt")
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        assert IO.load_checkpoint(tmp_path / "old.ckpt")["global_step"] == 7
    assert "not verified" in caplog.text
    with pytest.raises(FileNotFoundError, match="found no checkpoint there"):
        IO.load_checkpoint(tmp_path / "none.ckpt")


def test_without_space_nothing_is_begun(saved, tmp_path, monkeypatch):
    needed = tensor_bytes(STATE) + plugin.BESIDES_TENSORS
    asked = []
    monkeypatch.setattr(plugin, "free_bytes", lambda folder: asked.append(folder) or needed - 1)
    path = tmp_path / "new" / "step=8.ckpt"
    with pytest.raises(ValueError, match=f"{path}: found {needed - 1} bytes free, expected at least the {needed}"):
        IO.save_checkpoint(STATE, path)
    assert asked == [tmp_path]
    assert not path.parent.exists()
    assert IO.load_checkpoint(saved)["global_step"] == 7
    monkeypatch.setattr(plugin, "free_bytes", lambda folder: needed)
    IO.save_checkpoint(STATE, path)


def test_the_real_disk_is_asked(tmp_path):
    check_space(tmp_path / "small.ckpt", 1)
    with pytest.raises(ValueError, match="bytes free"):
        check_space(tmp_path / "big.ckpt", 1 << 70)


def test_bytes_are_those_of_the_memory_saved(tmp_path):
    whole = torch.zeros(1000, dtype=torch.float64)
    assert tensor_bytes({"part": whole[:3], "again": [whole, (whole.view(10, 100),)], "number": 5}) == 8000
    assert tensor_bytes({"a": torch.zeros(10), "b": torch.zeros(10)}) == 80
    IO.save_checkpoint({"part": whole[:3], "whole": whole}, tmp_path / "one.ckpt")
    written = (tmp_path / "one.ckpt" / CONTENT).stat().st_size
    assert 8000 < written < 8000 + plugin.BESIDES_TENSORS


def test_a_checkpoint_is_removed(saved, tmp_path):
    IO.remove_checkpoint(saved)
    IO.remove_checkpoint(saved)  # is not there: nothing to do
    (tmp_path / "old.ckpt").write_bytes(b"")
    IO.remove_checkpoint(tmp_path / "old.ckpt")
    assert list(tmp_path.iterdir()) == []

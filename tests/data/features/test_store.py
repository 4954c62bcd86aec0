"""What is written is what is read; an interruption changes no byte; damaged, foreign and stale entries are refused."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.data.features.conftest import Encoder, value
from theworld.data.features import store as store_module
from theworld.data.features.manifest import Manifest
from theworld.data.features.shard import checksum
from theworld.data.features.store import FeatureStore, open_features


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def shard(cache):
    return lambda number: cache.folder / "image_features" / f"shard-{number:06d}.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_entries_are_read_as_they_were_written(cache, shard, dtype):
    encoder = cache.write(Encoder(dtype), dtype=str(dtype).removeprefix("torch."))
    assert encoder.asked == [[0, 1, 2], [3], [4, 5]]  # no batch reaches over a shard's end
    store = FeatureStore(cache.folder, "image_features")
    for row, entry in enumerate(cache.drawings.entry.tolist()):
        found = store.read(row, cache.keys(row))
        assert found.dtype == dtype
        assert torch.equal(found, value(entry, dtype))
    plain = load_file(shard(1))  # any reader of safetensors can
    assert torch.equal(plain["image_features"], torch.stack([value(4, dtype), value(5, dtype)]))
    zeros = store.zeros()
    assert (zeros.shape, zeros.dtype, float(zeros.abs().sum())) == ((3, 5), dtype, 0.0)


def test_what_is_no_number_is_never_written(cache, shard):
    class Overflowing(Encoder):
        def __call__(self, batches):
            for made in super().__call__(batches):
                made[-1, 0, 0] = torch.inf
                yield made

    with pytest.raises(ValueError, match="values that are no finite numbers, for pictures 0 to 2 of a shard"):
        cache.write(Overflowing())
    assert not shard(0).exists()


def test_a_store_travels_to_other_processes_and_keeps_few_files_open(cache, monkeypatch):
    cache.write(entries_per_shard=1)
    monkeypatch.setattr(store_module, "_OPEN_FILES", 2)
    store = FeatureStore(cache.folder, "image_features")
    for _ in range(2):
        for row in range(7):
            assert torch.equal(store.read(row, cache.keys(row)), value(cache.drawings.entry[row]))
    assert len(store._open) == 2
    again = pickle.loads(pickle.dumps(store))
    assert len(again._open) == 0
    assert torch.equal(again.read(3, cache.keys(3)), value(3))


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_an_interrupted_writer_goes_on_and_changes_no_byte(cache, tmp_path, stop):
    cache.write(folder=tmp_path / "at once")
    with pytest.raises(KeyboardInterrupt):
        cache.write(Encoder(stop=stop))
    with pytest.raises(ValueError, match="the cache is not complete; start the same"):
        FeatureStore(cache.folder, "image_features")
    rest = cache.write()
    assert rest.asked == ([[4, 5]] if stop == 2 else [[0, 1, 2], [3], [4, 5]])
    assert files(cache.folder) == files(tmp_path / "at once")
    assert cache.write().asked == []
    assert files(cache.folder) == files(tmp_path / "at once")


def test_a_killed_writer_goes_on_and_changes_no_byte(cache, shard, tmp_path):
    """A real SIGKILL while the second shard is being made."""
    cache.write(folder=tmp_path / "at once")

    class Slow(Encoder):
        def __call__(self, batches):
            for made in super().__call__(batches):
                time.sleep(0.0 if len(self.asked) < 3 else 60.0)
                yield made

    child = multiprocessing.get_context("fork").Process(target=cache.write, args=(Slow(),))
    child.start()
    while not shard(0).exists():
        assert child.is_alive()
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not shard(1).exists()
    assert cache.write().asked == [[4, 5]]
    assert files(cache.folder) == files(tmp_path / "at once")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder": {"weights_sha256": "xy"}}, r"weights_sha256 \(cache ab, now xy\)"),
        ({"encoder": {"weights_dtype": "bfloat16"}}, r"weights_dtype \(cache float32, now bfloat16\)"),
        ({"encoder": {"precision": "bf16-mixed"}}, r"precision \(cache 32-true, now bf16-mixed\)"),
        ({"encoder": {"device": "cuda"}}, r"device \(cache cpu, now cuda\)"),
        ({"preprocessing_sha256": "ef"}, r"preprocessing_sha256 \(cache cd, now ef\)"),
        ({"index_sha256": "0"}, r"index_sha256 \(cache \w+, now 0\)"),
        ({"batch_size": 2}, r"batch_size \(cache 3, now 2\)"),
    ],
)
def test_another_cache_is_neither_continued_nor_read(cache, change, named):
    if "encoder" in change:
        change = {"encoder": cache.manifest.encoder | change["encoder"]}
    cache.write()
    with pytest.raises(ValueError, match=rf"holds another cache: {named}\. Choose another folder"):
        cache.write(**change)
    expected = replace(cache.manifest, **change).facts
    with pytest.raises(ValueError, match=rf"is stale: {named}\. Make it again"):
        FeatureStore(cache.folder, "image_features").refuse_other(expected, fix="Make it again.")
    FeatureStore(cache.folder, "image_features").refuse_other(cache.manifest.facts, fix="")
    assert sum(cache.write(restart=True, **change).asked, []) == [0, 1, 2, 3, 4, 5]
    assert cache.write(**change).asked == []


@pytest.mark.parametrize("place", ["data", "sums", "header"])
def test_a_flipped_bit_is_refused(cache, shard, place):
    cache.write()
    content = bytearray(shard(0).read_bytes())
    offset = {"data": content.find(value(2).numpy().tobytes()) + 3, "sums": 0, "header": 12}[place]
    if place == "sums":  # the sums lie before or after the entries, as safetensors orders them
        sums = load_file(shard(0))["sums"]
        offset = content.find(sums.numpy().tobytes()) + 2 * 8
    content[offset] ^= 1
    shard(0).write_bytes(content)
    store = FeatureStore(cache.folder, "image_features")
    with pytest.raises(ValueError, match=r"shard-000000.safetensors: .*`theworld data cache`"):
        store.read(2, cache.keys(2))
    assert torch.equal(store.read(5, cache.keys(5)), value(4))  # another shard
    if place != "header":
        assert torch.equal(store.read(3, cache.keys(3)), value(3))  # another entry


def test_a_shard_that_is_cut_short_or_gone_is_refused_at_once(cache, shard):
    cache.write()
    store, content = FeatureStore(cache.folder, "image_features"), shard(1).read_bytes()
    store.read(5, cache.keys(5))
    with shard(1).open("rb+") as file:
        file.truncate(len(content) - 40)
    with pytest.raises(ValueError, match="entry 1, for row 6, is damaged"):
        store.read(6, cache.keys(6))  # in the middle of a run
    with pytest.raises(ValueError, match=rf"found {len(content) - 40} bytes, expected {len(content)} bytes"):
        FeatureStore(cache.folder, "image_features")
    shard(1).unlink()
    with pytest.raises(ValueError, match="shard-000001.safetensors: found no file"):
        FeatureStore(cache.folder, "image_features")
    assert cache.write().asked == [[4, 5]]
    assert shard(1).read_bytes() == content


def test_entries_in_the_places_of_others_are_refused(cache, shard, tmp_path):
    cache.write(entries_per_shard=2)
    store = FeatureStore(cache.folder, "image_features")
    with pytest.raises(ValueError, match="entry 0, for row 0, is damaged or of another drawing"):
        store.read(0, cache.keys(1))
    shutil.copy(shard(1), shard(0))
    with pytest.raises(ValueError, match="of this cache and place"):
        FeatureStore(cache.folder, "image_features").read(0, cache.keys(0))
    cache.write(folder=tmp_path / "other", entries_per_shard=2, preprocessing_sha256="ef")
    shutil.copy(tmp_path / "other" / "image_features" / "shard-000000.safetensors", shard(0))
    with pytest.raises(ValueError, match="of this cache and place"):
        FeatureStore(cache.folder, "image_features").read(0, cache.keys(0))


def test_folders_that_are_no_caches(cache, tmp_path):
    with pytest.raises(ValueError, match="found none of image_features, world_latents; make them"):
        open_features(tmp_path, enable_world=True)
    strange = tmp_path / "strange" / "image_features"
    strange.mkdir(parents=True)
    (strange / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"found \['thesis.tex'\], expected an empty folder or a cache"):
        cache.write(folder=tmp_path / "strange")
    with pytest.raises(ValueError, match="thesis.tex"):
        cache.write(folder=tmp_path / "strange", restart=True)
    cache.write()
    assert set(open_features(cache.folder, enable_world=False)) == {"image_features"}
    (cache.folder / "image_features").rename(cache.folder / "world_latents")
    with pytest.raises(ValueError, match="holds image_features, expected world_latents"):
        open_features(cache.folder, enable_world=True)


def test_manifests_of_other_versions_and_damaged_ones(cache):
    cache.write()
    path = cache.folder / "image_features" / "manifest.json"
    text = path.read_text()
    for changed, message in (
        (text.replace('"format_version": 1', '"format_version": 2'), "has format version 2, expected 1"),
        (text[:40], "not a readable manifest"),
        (text.replace('"entries_per_shard"', '"entry_per_shard"'), "is damaged"),
    ):
        path.write_text(changed)
        with pytest.raises(ValueError, match=message):
            FeatureStore(cache.folder, "image_features")
    path.write_text(text)
    assert Manifest.read(path).shard_bytes


def test_drawings_of_another_index_are_refused(cache):
    cache.write()
    replace(cache.drawings, index_sha256="0").write(cache.folder / "drawings.safetensors")
    with pytest.raises(ValueError, match="describes 6 drawings of the index 0, expected 6 of"):
        FeatureStore(cache.folder, "image_features")
    replace(cache.drawings, entry=cache.drawings.entry * 0 - 1).write(cache.folder / "drawings.safetensors")
    with pytest.raises(ValueError, match="has no entry for row 0"):
        FeatureStore(cache.folder, "image_features").read(0, cache.keys(0))


def test_a_tower_that_gives_something_else_is_refused(cache):
    with pytest.raises(ValueError, match=r"the tower gave torch.bfloat16 \(3, 5\), expected torch.float32"):
        cache.write(Encoder(torch.bfloat16))


@pytest.mark.parametrize("words", [1, 511, 512, 513, 5000])
def test_a_checksum_notices_flips_swaps_and_other_keys(words):
    generator = torch.Generator().manual_seed(words)
    entry = torch.randint(-(2**62), 2**62, (words,), generator=generator)
    key = bytes(range(32))
    before = checksum(key, entry)
    assert checksum(key, entry.clone()) == before
    for bit in (0, 1, 31, 62, 63):
        flipped = entry.clone()
        flipped[words // 2] ^= 1 << bit if bit < 63 else -(2**63)
        assert checksum(key, flipped) != before, bit
    for place in range(32):
        assert checksum(key[:place] + bytes([key[place] ^ 128]) + key[place + 1 :], entry) != before
    lost = entry.clone()
    lost[words // 2 :] = 0
    assert checksum(key, lost) != before
    if words > 1024:
        moved = torch.cat([entry[512:1024], entry[:512], entry[1024:]])
        assert checksum(key, moved) != before
    odd = entry.view(torch.uint8)[: 8 * words - 3]
    assert checksum(key, odd) != checksum(key, torch.cat([odd[:-1], odd[-1:] ^ 1]))

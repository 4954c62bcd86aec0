"""The node cache: each block fetched once by all processes, within its bound at every moment, never a wrong byte."""

import os
import signal
import time
from multiprocessing import get_context

import numpy as np
import pytest

from theworld.data.indexing.table import SourceFile
from theworld.data.shards import node_cache
from theworld.data.shards.node_cache import Block, CachedBytes, NodeCache

BLOCK = 1000
KEPT = BLOCK + 4 * (4 + 1)  # of pages of 300 bytes
SHARDS = {name: os.urandom(20 * BLOCK + 300) for name in ("a", "b")}


class Source:
    """Shards in memory that notes, in a file that all processes share, what it was asked for."""

    name = "memory"

    def __init__(self, log, *, delay=0.0):
        self.log, self.delay = log, delay

    def size(self, shard):
        return shard.bytes

    def read(self, shard, offset, size):
        with self.log.open("a") as file:
            file.write(f"{shard.name} {offset}\n")
        time.sleep(self.delay)
        return SHARDS[shard.name][offset : offset + size]

    @property
    def asked(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


def _shard(name):
    return SourceFile(name=name, bytes=len(SHARDS[name]), sha256=name * 64)


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setattr(node_cache, "PAGE_BYTES", 300)

    def make(max_bytes=1 << 20, *, delay=0.0, patience=10.0):
        cache = NodeCache(tmp_path / "cache", max_bytes=max_bytes, block_bytes=BLOCK, patience=patience)
        return CachedBytes(Source(tmp_path / "log", delay=delay), cache)

    return make


def _in_children(work, *arguments, count=4):
    """Run `work(*arguments, number)` in `count` forked processes; their exit codes."""
    context = get_context("fork")
    children = [context.Process(target=work, args=(*arguments, number)) for number in range(count)]
    for child in children:
        child.start()
    return children


def _check(cached, name, offset, size):
    assert cached.read(_shard(name), offset, size) == SHARDS[name][offset : offset + size]


def _assert_whole(cached):
    """Every block in the folder has the right name, checksum and bytes."""
    paths = list(cached.cache.folder.glob("*.block"))
    for path in paths:
        sha256, block, number = path.stem.split("-")
        start = int(number) * BLOCK
        content = SHARDS[sha256[0]][start : start + BLOCK]
        assert path.read_bytes()[: len(content)] == content
        assert int(block) == BLOCK
        named = Block(name=path.stem, size=len(content))
        assert cached.cache.read(named, 0, len(content), lambda: pytest.fail("damaged")) == content
    return len(paths)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (999, 2), (0, 1000), (500, 4000), (20_000, 300), (5, 0)])
def test_any_range_and_each_block_once(make, offset, size):
    cached = make()
    for _ in range(2):
        for name in SHARDS:
            _check(cached, name, offset, size)
            _check(make(), name, offset, size)
    blocks = range(offset // BLOCK, -(-(offset + size) // BLOCK))
    assert sorted(cached.source.asked) == sorted(f"{name} {block * BLOCK}" for name in SHARDS for block in blocks)
    assert cached.size(_shard("a")) == len(SHARDS["a"])


def test_what_was_used_longest_ago_goes_first(make):
    cached = make(max_bytes=10 * KEPT)
    for block in range(10):
        _check(cached, "a", block * BLOCK, 1)
        time.sleep(0.002)
    _check(cached, "a", 0, 1)  # block 0 is used again
    _check(cached, "a", 10 * BLOCK, 1)  # needs room: blocks 1 and 2 go, down to nine tenths
    kept = {int(path.stem.split("-")[2]) for path in cached.cache.folder.glob("*.block")}
    assert kept == {0, 3, 4, 5, 6, 7, 8, 9, 10}
    asked = len(cached.source.asked)
    _check(cached, "a", 0, 1)
    assert len(cached.source.asked) == asked
    _check(cached, "a", BLOCK, 1)
    assert len(cached.source.asked) == asked + 1


def _read_much(cached, number):
    random = np.random.default_rng(number)
    for _ in range(100):
        _check(cached, "ab"[random.integers(2)], int(random.integers(20_000)), int(random.integers(1, 1500)))


def _most_used(folder, children):
    """Most bytes that blocks and a draft took while the children ran."""
    most = 0
    while any(child.is_alive() for child in children):
        found = 0
        for entry in os.scandir(folder):
            if entry.name.endswith(".block") or entry.name == "draft":
                try:
                    found += entry.stat().st_size
                except FileNotFoundError:
                    continue
        most = max(most, found)
    return most


@pytest.mark.parametrize("bounded", [True, False], ids=["bounded", "control: no room is made"])
def test_the_bound_holds_under_concurrent_readers(make, monkeypatch, bounded):
    if not bounded:
        monkeypatch.setattr(NodeCache, "_make_room", lambda self, needed: None)
    cached = make(max_bytes=6 * KEPT)
    children = _in_children(_read_much, cached)
    most = _most_used(cached.cache.folder, children)
    assert [child.exitcode for child in children] == [0] * 4  # every byte was right
    assert (most <= 6 * KEPT) == bounded
    assert most > 3 * KEPT
    assert (cached.cache.used_bytes() <= 6 * KEPT) == bounded
    assert _assert_whole(cached)


def _read_all(cached, number):
    _check(cached, "a", 0, len(SHARDS["a"]))


def test_processes_that_want_the_same_block_fetch_it_once(make):
    cached = make(delay=0.005)
    children = _in_children(_read_all, cached)
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert sorted(cached.source.asked) == sorted(f"a {block * BLOCK}" for block in range(21))


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def _half(path, content):
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    _die()


KILL_POINTS = {
    "while fetching": (Source, "read", _die),
    "before room is made": (NodeCache, "_make_room", _die),
    "while room is made": (NodeCache, "_drop_oldest", _die),
    "in the middle of writing": (node_cache.Path, "write_bytes", _half),
    "before the rename": (node_cache.os, "replace", _die),
}


def _read_and_die(cached, point, number):
    owner, name, deed = KILL_POINTS[point]
    setattr(owner, name, deed)  # in the child alone
    cached.read(_shard("b"), 5 * BLOCK, BLOCK)


@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_reader_killed_anywhere_leaves_nothing_wrong_and_no_lock(make, point):
    cached = make(max_bytes=6 * KEPT)
    for block in range(6):
        _check(cached, "a", block * BLOCK, 1)
    (child,) = _in_children(_read_and_die, cached, point, count=1)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert cached.cache.used_bytes() <= 6 * KEPT
    _assert_whole(cached)
    begun = time.monotonic()
    for block in range(10):
        _check(cached, "b", block * BLOCK, BLOCK)
        assert cached.cache.used_bytes() <= 6 * KEPT
    assert time.monotonic() - begun < cached.cache.patience / 2  # its locks went with it
    assert not (cached.cache.folder / "draft").exists()
    assert _assert_whole(cached)


@pytest.mark.parametrize("damage", ["cut", "flipped", "flipped sum", "flipped last sum", "empty", "of another block"])
def test_a_damaged_block_is_fetched_again(make, damage):
    cached = make()
    _check(cached, "a", 0, 2 * BLOCK)
    first, second = sorted(cached.cache.folder.glob("*.block"))
    content = bytearray(first.read_bytes())
    for name, place in (("flipped", 500), ("flipped sum", BLOCK + 7), ("flipped last sum", -1)):
        content[place] ^= name == damage
    kept = {"cut": content[:-1], "empty": b"", "of another block": second.read_bytes()}.get(damage, content)
    first.write_bytes(kept)
    _check(make(), "a", 400, 150)
    assert cached.source.asked == ["a 0", f"a {BLOCK}", "a 0"]
    _check(make(), "a", 0, BLOCK)
    assert len(cached.source.asked) == 3  # and kept


def test_forgotten_blocks_are_fetched_again(make):
    cached = make()
    _check(cached, "a", 0, 3 * BLOCK)
    cached.forget(_shard("a"), 1500, 1000)
    _check(cached, "a", 0, 3 * BLOCK)
    assert cached.source.asked == ["a 0", "a 1000", "a 2000", "a 1000", "a 2000"]


def test_a_count_that_was_lost_is_found_again(make):
    cached = make(max_bytes=6 * KEPT)
    for lost in ("", "x7", None):
        for block in range(10):
            _check(cached, "b", block * BLOCK, 1)
        counter = cached.cache.folder / "used_bytes"
        counter.unlink() if lost is None else counter.write_text(lost)
        _check(cached, "a", 0, 1)
        cached.forget(_shard("a"), 0, 1)
        assert cached.cache.used_bytes() <= int(counter.read_text()) <= 6 * KEPT


def test_a_full_disk_is_a_warning_and_the_bytes_are_right(make, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    cached = make()
    monkeypatch.setattr(node_cache.Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="a block could not be kept .*No space left"):
        _check(cached, "a", 0, 500)


def test_nobody_waits_for_ever(make):
    """A lock that is never freed costs time, and no block."""
    cached = make(patience=0.05)
    with cached.cache._locked("room.lock") as mine:
        assert mine
        with pytest.warns(UserWarning, match="another process has been making room"):
            _check(cached, "a", 0, 500)
        assert cached.cache.used_bytes() == 0
    _check(make(), "a", 0, 500)
    assert cached.cache.used_bytes() == KEPT


def test_a_cache_too_small_for_a_block_is_refused(tmp_path):
    with pytest.raises(ValueError, match="may take 1000 bytes, expected room for at least one block of 1000 bytes"):
        NodeCache(tmp_path, max_bytes=BLOCK, block_bytes=BLOCK)

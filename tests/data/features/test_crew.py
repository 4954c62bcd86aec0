"""Several processes make the cache that one would make, byte for byte, and go on with what any of them had finished."""

from __future__ import annotations

import multiprocessing
import os
import socket
from dataclasses import replace

import pytest
import torch

from tests.data.features.conftest import Encoder
from tests.data.features.test_store import files
from theworld.data.features.crew import Crew
from theworld.data.features.store import DRAWINGS
from theworld.data.features.writer import write_features


def one_of(cache, rank: int, size: int, port: int, stop: int | None, asked) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    tower = Encoder(stop=stop)
    with Crew.of_torchrun() as crew:
        folder = cache.folder / cache.manifest.feature
        write_features(folder, cache.manifest, cache.drawings, tower, crew=crew, progress=False)
    asked.put((rank, tower.asked))


def run(cache, size: int, stops: dict[int, int] | None = None) -> dict[int, list[list[int]]]:
    """What each process was asked for; with `stops`, one process stops before that batch and ends the others."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    asked = context.Queue()
    stops = stops or {}
    ranks = [
        context.Process(target=one_of, args=(cache, rank, size, port, stops.get(rank), asked)) for rank in range(size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [process.exitcode == 0 for process in ranks] == [not stops] * size
    return {} if stops else dict(asked.get() for _ in ranks)


@pytest.fixture
def small_shards(cache, monkeypatch):
    """Three shards of two entries, in batches of one; and what one process makes of them."""
    cache.manifest = replace(cache.manifest, entries_per_shard=2, batch_size=1)
    cache.write(folder=cache.folder.with_name("at once"))
    cache.folder.mkdir()
    cache.drawings.write(cache.folder / DRAWINGS)
    return cache


def test_two_processes_make_the_cache_of_one(small_shards):
    assert run(small_shards, 2) == {0: [[0], [1], [4], [5]], 1: [[2], [3]]}
    assert files(small_shards.folder) == files(small_shards.folder.with_name("at once"))
    assert run(small_shards, 3) == {0: [], 1: [], 2: []}


def test_what_was_made_before_an_error_is_kept_for_any_number_of_processes(small_shards):
    run(small_shards, 2, stops={0: 2})
    assert not (small_shards.folder / "image_features" / "manifest.json").exists()
    assert run(small_shards, 3) == {0: [], 1: [], 2: [[4], [5]]}
    assert files(small_shards.folder) == files(small_shards.folder.with_name("at once"))


def test_devices(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert Crew(3, 8).device("cuda") == torch.device("cuda", 3)
    assert Crew().device("cuda") == torch.device("cuda")
    assert Crew(3, 8).device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Crew(3, 8).device(None) == torch.device("cpu")

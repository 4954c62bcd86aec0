"""Rows out of shards: the very bytes, from a folder or by HTTP; for every fault an error that names shard and row."""

import pickle
import re
from dataclasses import replace
from multiprocessing import get_context

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from tests.range_server import RangeServer
from tests.shard_parts import FAULTS, edit, index_of, make_source
from theworld.data.shards.node_cache import NodeCache
from theworld.data.shards.remote import RemoteBytes
from theworld.data.shards.store import ShardStore
from theworld.data.shards.writer import write_shards

ROWS = 30


@pytest.fixture
def source():
    return make_source(ROWS, without_image=(4,))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "shards"


@pytest.fixture
def index(source, folder):
    return write_shards(source, index_of(source), folder, shard_bytes=1 << 16, progress=False)


@pytest.fixture
def server(index, folder):
    with RangeServer(folder) as running:
        yield running


@pytest.fixture
def remote(server, index, tmp_path, monkeypatch):
    """A store over HTTP with blocks of 4 kB, so that members begin and end anywhere in them; it gives up soon."""
    monkeypatch.setattr(
        "theworld.data.shards.store.open_bytes",
        lambda url: RemoteBytes(url, request_timeout=2.0, give_up_after=0.3, first_wait=0.01),
    )
    monkeypatch.setattr(
        "theworld.data.shards.store.NodeCache",
        lambda path, max_bytes: NodeCache(path, max_bytes=max_bytes, block_bytes=4096),
    )
    return ShardStore(index, server.url, cache_dir=tmp_path / "cache", cache_bytes=1 << 20)


def _assert_equal(store, source, rows=tuple(i for i in range(ROWS) if i != 4)):
    for row in rows:
        assert store.image_bytes(row) == source.images[row]
        assert store.row_bytes(row) == source.rows[row]


def test_from_a_folder(index, folder, source):
    _assert_equal(ShardStore(index, folder), source)


def test_by_http_in_any_order_and_again_without_a_request(remote, server, source, index):
    rows = [row for row in np.random.default_rng(0).permutation(ROWS) if row != 4]
    _assert_equal(remote, source, rows)
    asked = len(server.ranges)
    assert all(0 < after - first <= 4096 for _, first, after in server.ranges)
    assert asked == len(set(server.ranges))  # no block twice
    assert sum(after - first for _, first, after in server.ranges) <= sum(shard.bytes for shard in index.header.shards)
    _assert_equal(pickle.loads(pickle.dumps(remote)), source, rows)
    assert len(server.ranges) == asked


def test_from_memory_as_from_any_other_store_of_objects(index, folder, source, tmp_path):
    files = fsspec.filesystem("memory")
    for path in folder.glob("*.tar"):
        files.pipe_file(f"/bucket/shards/{path.name}", path.read_bytes())
    _assert_equal(ShardStore(index, "memory://bucket/shards", cache_dir=tmp_path / "cache"), source)


def _read_in_child(store, source, results):
    _assert_equal(store, source)
    results.put("read")


@pytest.mark.parametrize("kind", ["folder", "http"])
def test_in_forked_processes(index, folder, server, source, tmp_path, kind):
    """Also after the parent has read, whose open files and connections a fork inherits."""
    store = ShardStore(index, folder if kind == "folder" else server.url, cache_dir=tmp_path / "cache")
    store.row_bytes(0)
    context = get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_read_in_child, args=(store, source, results)) for _ in range(2)]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == ["read", "read"]
    for child in children:
        child.join()
    _assert_equal(store, source)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_a_shard_are_errors_of_their_row_alone(index, folder, source, fault):
    change, message = FAULTS[fault]
    edit(folder, index, 13, change)
    store = ShardStore(index, folder)
    name = index.header.shards[index.column("shard")[13]].name
    with pytest.raises(ValueError, match=f"row 13, id 'row-13', {name}: {re.escape(message)}"):
        store.row_bytes(13), store.image_bytes(13)
    _assert_equal(store, source, [row for row in range(ROWS) if row not in (4, 13)])


def test_a_block_that_went_wrong_on_the_way_is_fetched_again(remote, server, source):
    server.faults.extend(["flip"] * 2)
    _assert_equal(remote, source)
    assert len(server.ranges) > len(set(server.ranges))


def test_a_block_that_is_wrong_for_good_is_an_error_and_mends_with_its_server(remote, server, source):
    server.always = "flip"
    with pytest.raises(ValueError, match=r"127.0.0.1:\d+, row 13, id 'row-13', shard-00000\d.tar: "):
        remote.image_bytes(13)
    server.always = None
    assert remote.image_bytes(13) == source.images[13]


@pytest.mark.parametrize("fault", ["503", "drop"])
def test_a_server_that_stays_broken_is_an_error_that_names_shard_and_row(remote, server, source, fault):
    server.always = fault
    message = (
        r"row 13, id 'row-13', shard-00000(\d).tar: http://127.*/shard-00000\1.tar, bytes \d+ to \d+: cannot be read"
    )
    with pytest.raises(OSError, match=message):
        remote.image_bytes(13)
    server.always = None
    assert remote.image_bytes(13) == source.images[13]


def test_shards_cut_short_or_missing_are_refused_at_once(index, folder):
    path = folder / index.header.shards[2].name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"{path.name}: found {len(whole) - 1} bytes, expected {len(whole)}"):
        ShardStore(index, folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        ShardStore(index, folder)
    with pytest.raises(ValueError, match="shard folder .* does not exist"):
        ShardStore(index, folder / "absent")


@pytest.mark.parametrize("kind", ["folder", "http"])
def test_a_shard_cut_short_later_is_an_error_of_the_rows_behind(index, folder, source, server, tmp_path, kind):
    store = ShardStore(index, folder if kind == "folder" else server.url, cache_dir=tmp_path / "cache")
    rows = np.flatnonzero(index.column("shard") == 1)
    path = folder / index.header.shards[1].name
    path.write_bytes(path.read_bytes()[: index.column("image_offset")[rows[2]] + 1])
    with pytest.raises(ValueError, match=f"row {rows[2]}, .* the shard is cut short"):
        store.image_bytes(int(rows[2]))
    _assert_equal(store, source, rows[:2].tolist())


def test_a_row_without_an_image_says_so(index, folder):
    with pytest.raises(ValueError, match=r"row 4, id 'row-4': is in no shard, .* \(verdict 'missing image: none'\)"):
        ShardStore(index, folder).row_bytes(4)


@pytest.mark.parametrize(
    "name", ["../shard-000000.tar", "/tmp/shard-000000.tar", ".tar", "a/b.tar", "shard-000000.zip", ""]
)
def test_shard_names_that_lead_elsewhere_are_refused_before_any_is_read(index, folder, server, tmp_path, name):
    shards = (*index.header.shards[:-1], replace(index.header.shards[-1], name=name))
    evil = replace(index, header=replace(index.header, shards=shards))
    for root in (folder, server.url):
        with pytest.raises(ValueError, match=f"shard name {name!r} is not a plain file name"):
            ShardStore(evil, root, cache_dir=tmp_path / "cache")
    assert not server.ranges


def test_an_index_that_is_not_of_shards_or_points_outside_is_refused(index, folder, source):
    with pytest.raises(ValueError, match="describes no shards"):
        ShardStore(index_of(source), folder)
    bad_hash = (replace(index.header.shards[0], sha256="../evil"), *index.header.shards[1:])
    with pytest.raises(ValueError, match="has sha256 '../evil', expected 64 hex digits"):
        ShardStore(replace(index, header=replace(index.header, shards=bad_hash)), folder)
    for name, value in (("offset", 1 << 40), ("image_offset", 0), ("shard", 99)):
        values = index.column(name).copy()
        values[7] = value
        column = index.table.schema.get_field_index(name)
        table = index.table.set_column(column, name, pa.array(values))
        with pytest.raises(ValueError, match="row 7, id 'row-7': lies outside its shard"):
            ShardStore(replace(index, table=table), folder)

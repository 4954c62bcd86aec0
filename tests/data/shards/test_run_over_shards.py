"""Training over shards, in a folder or by HTTP, gives the batches that training over rows and images gives."""

from dataclasses import fields

import pytest
import torch

from tests.range_server import RangeServer
from theworld.data.indexing.index import Index
from theworld.data.packing.loader import PlanLoader
from theworld.data.samples import OSDSamples
from theworld.data.shards.store import ShardStore
from theworld.data.shards.writer import write_shards
from theworld.types import Batch

ROWS = 22


@pytest.fixture
def over_folder(open_osd, make_row, make_samples):
    broken = make_row(5, conversations=[])
    rows = [broken if i == 5 else make_row(i, turns=1 + i % 3) for i in range(ROWS)]
    return make_samples(open_osd(rows), skip_malformed=True)


@pytest.fixture
def shards(over_folder, tmp_path):
    """Folder of their three shards."""
    folder = tmp_path / "shards"
    write_shards(over_folder.store, over_folder.index, folder, shard_bytes=1 << 16, progress=False)
    return folder


@pytest.fixture
def server(shards):
    with RangeServer(shards) as running:
        yield running


@pytest.fixture
def over_shards(over_folder, shards, tmp_path):
    """Samples of the shards below a root, as another machine has them: by nothing but the files of the shards."""

    def make(root):
        index = Index.read(shards / "index.parquet", name=over_folder.index.name)
        store = ShardStore(index, root, cache_dir=tmp_path / "cache")
        return OSDSamples(store, index=index, processor=over_folder.processor)

    return make


def _loader(samples, **changes):
    return PlanLoader(samples, **{"budget": 400, "micro_batches_per_step": 2, "seed": 5} | changes)


def _assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected) > 3
    for one, other in zip(found, expected, strict=True):
        assert one.failed == other.failed == ()
        for field in fields(Batch):
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert torch.equal(a, b) if isinstance(b, torch.Tensor) else a == b, field.name


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_batch_of_two_epochs_is_that_of_the_folder(over_folder, over_shards, server, shards, num_workers):
    expected = _loader(over_folder)
    expected = [batch for _ in range(2) for batch in expected]
    assert {name for batch in expected for name in batch.ids} == {f"row-{i}" for i in range(ROWS) if i != 5}
    for root in (shards, server.url):
        loader = _loader(over_shards(root), num_workers=num_workers)
        _assert_same([batch for _ in range(2) for batch in loader], expected)
    assert len(server.ranges) == len(set(server.ranges)) == 3  # a block a shard; the second epoch asked for nothing


def test_a_run_over_the_folder_goes_on_over_http(over_folder, over_shards, server):
    through = list(_loader(over_folder))
    begun = _loader(over_folder)
    first = [batch for _, batch in zip(range(4), begun, strict=False)]
    resumed = _loader(over_shards(server.url))
    resumed.load_state_dict(begun.state_dict())
    _assert_same(first + list(resumed), through)


def test_shuffled_in_windows_of_shards_the_blocks_are_read_in_order(over_shards, server, shards):
    expected = list(_loader(over_shards(shards), window=1))
    _assert_same(list(_loader(over_shards(server.url), window=1)), expected)
    seen = [name for name, _, _ in server.ranges]
    assert seen == sorted(seen, key=seen.index)  # one shard after the other
    assert len(set(seen)) == 3


def test_a_flipped_byte_is_one_failed_sample_and_no_other_changes(over_folder, over_shards, server, shards):
    """The control: these tests see a difference of one bit."""
    over_http = over_shards(server.url)
    index = over_http.index
    path = shards / index.header.shards[index.column("shard")[7]].name
    content = bytearray(path.read_bytes())
    content[index.column("image_offset")[7] + 100] ^= 1
    path.write_bytes(content)
    found, expected = list(_loader(over_http)), list(_loader(over_folder))
    assert [failed.id for batch in found for failed in batch.failed] == ["row-7"]
    assert [batch.ids for batch in found] == [batch.ids for batch in expected]
    with pytest.raises(AssertionError):
        _assert_same(found, expected)
    whole = [(a, b) for a, b in zip(found, expected, strict=True) if "row-7" not in b.ids]
    _assert_same([a for a, _ in whole], [b for _, b in whole])

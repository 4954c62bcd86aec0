"""A folder, an index on disk, shards, several sources: the same samples; and what does not fit together is refused."""

from types import SimpleNamespace

import fsspec
import pytest
import torch

from theworld.data.indexing.file import index_file
from theworld.data.indexing.index import Index
from theworld.data.indexing.table import SourceFile
from theworld.data.shards.writer import write_shards
from theworld.data.splits import SourceConfig, check_cache
from theworld.data.stores import FolderStore

ROWS = 22


@pytest.fixture
def files(make_data):
    data = make_data()
    return data._sources["train"].path, data._sources["train"].images


@pytest.fixture
def indexed(files, processor, tmp_path):
    """The training rows' index on disk, and shards of them."""
    path, images = files
    output = tmp_path / "train.parquet"
    index = index_file(
        path, image_folder=images, output=output, processor=processor, max_seq_length=300, num_workers=0, progress=False
    )
    store = FolderStore(index, rows_path=path, image_folder=images)
    write_shards(store, index, tmp_path / "shards", shard_bytes=1 << 16, progress=False)
    return str(output), str(tmp_path / "shards")


def _epoch(data):
    data.setup("fit")
    return list(data.train_dataloader())


def _equal(first, second):
    return len(first) == len(second) and all(
        a.ids == b.ids
        and a.step_target_tokens == b.step_target_tokens
        and torch.equal(a.input_ids, b.input_ids)
        and torch.equal(a.pixel_values, b.pixel_values)
        and torch.equal(a.world_pixel_values, b.world_pixel_values)
        for a, b in zip(first, second, strict=True)
    )


def test_an_index_and_shards_give_the_batches_of_the_folder(make_data, indexed):
    index, shards = indexed
    assert len(Index.read(f"{shards}/index.parquet").header.shards) > 1
    folder = _epoch(make_data())
    assert _equal(_epoch(make_data(train_index=index)), folder)
    from_shards = {"train_path": None, "train_images": None, "train_shards": shards}
    assert _equal(_epoch(make_data(**from_shards)), folder)
    assert not _equal(_epoch(make_data(seed=6)), folder)
    windowed = _epoch(make_data(**from_shards, shuffle_window=1))
    assert sorted(name for batch in windowed for name in batch.ids) == sorted(f"row-{i}" for i in range(ROWS))
    assert not _equal(windowed, folder)


def test_a_run_over_the_folder_goes_on_over_its_shards(make_data, indexed):
    _, shards = indexed
    data = make_data()
    folder = _epoch(data)
    loader = data.train_dataloader()
    batches = iter(loader)
    for _ in range(2):
        next(batches)
    other = make_data(train_path=None, train_images=None, train_shards=shards)
    other.load_state_dict({"train": loader.state_dict()})
    assert _equal(_epoch(other), folder[2:])


def test_sources_are_mixed(make_data, files, indexed):
    path, images = files
    index, shards = indexed
    sources = [
        SourceConfig(name="folder", path=path, images=images, index=index),
        SourceConfig(name="shards", shards=shards, share=0.5, loss_weight=2.0),
    ]
    batches = _epoch(make_data(train_path=None, train_images=None, sources=sources, max_images_per_row=2))
    names = [name for batch in batches for name in batch.ids]
    assert sorted(name for name in names if name.startswith("folder/")) == sorted(
        f"folder/row-{i}" for i in range(ROWS)
    )
    half = [name for name in names if name.startswith("shards/")]
    assert len(half) == len(set(half)) == ROWS // 2
    assert all(len(batch.pixel_values) <= 2 for batch in batches)
    assert {weight for batch in batches for weight in batch.target_weights.tolist()} == {1.0, 2.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_seq_length": 301}, r"train.parquet was made with other settings: max_seq_length \(index 300, now 301\)"),
        ({"region_style": "mask"}, r"region_style \(index box, now mask\)"),
        ({"num_world_tokens": 6}, r"num_world_tokens \(index 5, now 6\)"),
        ({"row_format": "vsr"}, r"row_format \(index osd, now vsr\)"),
    ],
)
def test_an_index_of_another_run_is_refused(make_data, indexed, changes, message):
    index, _ = indexed
    with pytest.raises(ValueError, match=message):
        make_data(train_index=index, val_path=None, val_images=None, **changes).setup("fit")


def test_an_index_of_another_place_is_refused(make_data, indexed, files):
    index, shards = indexed
    with pytest.raises(ValueError, match="index.parquet: is the index of shards, expected the one of the folder"):
        make_data(train_index=f"{shards}/index.parquet").setup("fit")
    with pytest.raises(ValueError, match="train.parquet: is the index of a folder, expected the one of shards"):
        make_data(train_path=None, train_images=None, train_shards=shards, train_index=index).setup("fit")
    with open(files[0], "a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match=r"train.json: found \d+ bytes, expected \d+ bytes"):
        make_data(train_index=index).setup("fit")


def test_remote_shards(make_data, indexed, tmp_path):
    _, shards = indexed
    fsspec.filesystem("memory").put(shards, "/remote", recursive=True)
    remote = {"train_path": None, "train_images": None, "train_shards": "memory://remote"}
    remote |= {"train_index": f"{shards}/index.parquet", "cache_dir": str(tmp_path / "cache")}
    assert _equal(_epoch(make_data(**remote)), _epoch(make_data()))
    with pytest.raises(ValueError, match="shards at memory://remote without an index"):
        make_data(**remote | {"train_index": None}).setup("fit")


def test_remote_shards_that_do_not_fit_the_cache_are_refused():
    shards = [SourceFile(name=f"shard-{i:06d}.tar", bytes=100 + i, sha256="") for i in range(5)]
    opened = SimpleNamespace(index=SimpleNamespace(header=SimpleNamespace(shards=shards)))

    def check(place, window, cache_bytes):
        check_cache([SourceConfig(name="a", shards=place)], [opened], window=window, bytes=cache_bytes)

    check("http://host/shards", None, 510)
    check("http://host/shards", 3, 410)
    check("/local/shards", None, 1)
    with pytest.raises(
        ValueError, match=r"shuffle_window=None over .* 5 of them .* 510 bytes.* shuffle_window to 3 or"
    ):
        check("http://host/shards", None, 509)
    with pytest.raises(ValueError, match=r"shuffle_window=3 over .* 4 of them .* 410 bytes.* shuffle_window to 2 or"):
        check("http://host/shards", 3, 409)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_shards": "shards"}, "train_shards='shards', expected one of them"),
        ({"train_path": None, "train_images": None, "train_index": "a"}, "train_index='a' alone, expected train_path"),
        ({"sources": [SourceConfig(name="a", shards="b")]}, "found `sources` and train_path or train_shards"),
        (
            {"train_path": None, "train_images": None, "sources": [SourceConfig(name="a", path="b")]},
            r"sources\[0\].path='b' and sources\[0\].images=None, expected both",
        ),
        ({"train_path": None, "train_images": None, "sources": [SourceConfig(name="a")]}, "'a' says nothing of where"),
        ({"row_format": "coco"}, "row_format is 'coco', expected one of"),
    ],
)
def test_sources_that_do_not_fit_together(make_data, changes, message):
    with pytest.raises(ValueError, match=message):
        make_data(**changes)

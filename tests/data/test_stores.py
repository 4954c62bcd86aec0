"""What is read in training is what was indexed, byte for byte, or an error that names file, row and id."""

import os
import pickle
from dataclasses import replace

import pytest
import torch

from theworld.data.indexing.build import build_index
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore, ImageFolder


@pytest.fixture
def rows(open_osd, make_row):
    return open_osd([make_row(i) for i in range(3)])


@pytest.fixture
def index(rows, processor):
    return build_index(rows, processor, max_seq_length=400, name="train")


@pytest.fixture
def store(rows, index):
    return FolderStore(index, rows_path=rows.path, image_folder=rows.images.folder)


def _flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_bytes_are_those_on_disk(rows, store):
    for number in range(3):
        assert store.row_bytes(number) == rows.json[number]
        assert store.image_bytes(number) == (rows.images.folder / f"img{number}.png").read_bytes()
    assert store.name == str(rows.path)


def test_it_is_pickled_while_open(store):
    before = store.row_bytes(1)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.row_bytes(1) == before
    assert copy.image_bytes(1) == store.image_bytes(1)


def test_a_flipped_byte_of_an_image_is_found_in_training(rows, store, index, processor):
    samples = OSDSamples(store, index=index, processor=processor)
    whole = samples[1]
    _flip(rows.images.folder / "img1.png", -100)
    with pytest.raises(ValueError, match=r"train.json, row 1, id 'row-1': image img1.png has sha256 \w+, expected \w+"):
        samples[1]
    assert samples[0].id == "row-0"
    _flip(rows.images.folder / "img1.png", -100)
    assert torch.equal(samples[1].pixel_values, whole.pixel_values)


def test_an_image_that_has_gone(rows, store):
    (rows.images.folder / "img1.png").unlink()
    with pytest.raises(ValueError, match=r"row 1, id 'row-1': img1.png: cannot be read .*No such file"):
        store.image_bytes(1)


def test_a_flipped_byte_of_a_row(rows, store, index):
    digit = int(index.column("offset")[1]) + rows.json[1].index(b"12, 20")
    _flip(rows.path, digit)  # still valid JSON with as many tokens: another box
    with pytest.raises(ValueError, match=rf"row 1, id 'row-1': the bytes from {index.column('offset')[1]} on are not"):
        store.row_bytes(1)
    store.row_bytes(0)


def test_rows_that_are_not_those_indexed_are_refused(rows, index):
    def opened():
        return FolderStore(index, rows_path=rows.path, image_folder=rows.images.folder)

    opened()
    os.utime(rows.path, (1, 1))  # a copy may lose the time; the content tells
    opened()
    _flip(rows.path, -5)
    with pytest.raises(ValueError, match=r"train.json: found sha256 \w+, expected sha256 \w+"):
        opened()
    with rows.path.open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match=rf"found {rows.path.stat().st_size} bytes, expected .*theworld data index"):
        opened()
    rows.path.unlink()
    with pytest.raises(ValueError, match="train.json: no such file"):
        opened()


def test_an_image_without_a_hash_is_not_compared(rows, index):
    place = index.table.schema.get_field_index("image_sha256")
    table = index.table.set_column(place, index.table.schema.field(place), [[""] * 3])
    store = FolderStore(replace(index, table=table), rows_path=rows.path, image_folder=rows.images.folder)
    _flip(rows.images.folder / "img1.png", -100)
    assert store.image_bytes(1)


def test_images_are_found_with_and_without_suffix_and_inside_alone(tmp_path):
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.jpg", "b.PNG", "deep/c.webp", "d.e.jpeg"):
        (folder / name).write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    images = ImageFolder(folder, rows_path="rows.json")
    assert [images.find(name) for name in ("a", "a.jpg", "b.PNG", "deep/c", "d.e")] == [
        *("a.jpg", "a.jpg", "b.PNG", "deep/c.webp", "d.e.jpeg")
    ]
    for name, message in (
        ("none", "found no image 'none'"),
        ("../secret", "plain path below"),
        (str(tmp_path / "secret.png"), "plain path below"),
        ("link", "link to outside"),
        ("a\0", "plain path below"),
    ):
        with pytest.raises(ValueError, match=message):
            images.find(name)
    with pytest.raises(ValueError, match="link to outside"):
        images.read("link.png")
    assert images.read("a.jpg") == b"x"

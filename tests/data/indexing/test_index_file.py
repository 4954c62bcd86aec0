"""An index on disk: equal to the one in memory, whatever interrupts its making, and refused where it does not fit."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from theworld.data.indexing import workers as index_workers
from theworld.data.indexing.build import build_index
from theworld.data.indexing.file import index_file
from theworld.data.indexing.header import make_header, refuse_other
from theworld.data.indexing.index import Index
from theworld.data.indexing.parts import PartsFolder
from theworld.data.indexing.table import SCHEMA
from theworld.data.rows.osd import OSDRows


def test_equals_the_index_in_memory(make, source, processor, tmp_path):
    index = make()
    path, images = source
    rows = OSDRows(path, image_folder=images)
    memory = build_index(rows, processor, max_seq_length=400, name="m", skip_malformed=True)
    assert index.sha256 == memory.sha256
    assert index.header == memory.header
    codes = [verdict.split(":")[0] for verdict in index.verdicts]
    assert codes == [verdict.split(":")[0] for verdict in memory.verdicts]
    assert {row: code for row, code in enumerate(codes) if code != "ok"} == {
        5: "mask count",
        17: "duplicate id",
        20: "missing image",
    }
    assert not (tmp_path / "a.parquet.parts").exists()
    same = index.table.drop_columns("verdict").equals(memory.table.drop_columns("verdict"))
    assert same, "all columns but the verdicts, whose texts name the file in memory"


def test_what_is_written_is_read(make, tmp_path):
    index = make()
    found = Index.read(tmp_path / "a.parquet", name="train")
    assert found.table.schema.equals(SCHEMA)
    assert found.table.equals(index.table)
    assert found.header == index.header
    assert found.sha256 == index.sha256
    assert found.header.source.bytes == (tmp_path / "train.json").stat().st_size
    assert found.summary().startswith("train: 23 rows, 20 ok")
    first = int(found.column("offset")[2]), int(found.column("size")[2])
    with (tmp_path / "train.json").open("rb") as file:
        file.seek(first[0])
        assert json.loads(file.read(first[1]))["id"] == "row-2"
    index.write(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "a.parquet").read_bytes()


def test_workers_make_the_same_bytes(make, tmp_path):
    make("alone.parquet")
    make("together.parquet", num_workers=2)
    assert (tmp_path / "together.parquet").read_bytes() == (tmp_path / "alone.parquet").read_bytes()


def test_an_interrupted_run_goes_on_and_makes_the_same_bytes(make, tmp_path, monkeypatch):
    make("whole.parquet")
    made = []

    def make_part(part, original=index_workers._make_part):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(part.number)
        return original(part)

    monkeypatch.setattr(index_workers, "_make_part", make_part)
    with pytest.raises(KeyboardInterrupt):
        make()
    assert made == [0, 1, 2]
    folder = tmp_path / "a.parquet.parts"
    assert not (tmp_path / "a.parquet").exists()
    (folder / "part-000001.parquet").write_bytes(b"torn")  # a part that is damaged is made again
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        make()
    assert made == [1, 3, 4]
    made.clear()
    make()
    assert made == [5]
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_seq_length": 300}, r"max_seq_length \(then 400, now 300\)"),
        ({"region_style": "mask"}, r"region_style \(then box, now mask\)"),
        ({"check_images": False}, r"check_images \(then True, now False\)"),
    ],
)
def test_an_interrupted_run_with_other_settings_is_refused(make, monkeypatch, changes, message):
    def interrupt(part):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(index_workers, "_make_part", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make()
    with pytest.raises(ValueError, match=rf"these changed: {message}.*--restart"):
        make(**changes)
    make()


def test_the_rows_may_not_change_meanwhile(make, source, monkeypatch):
    path, _ = source

    def append(part, original=index_workers._make_part):
        with path.open("a") as file:
            file.write(" ")
        return original(part)

    monkeypatch.setattr(index_workers, "_make_part", append)
    with pytest.raises(ValueError, match="changed while it was indexed"):
        make()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="these changed: rows bytes .*, now "):
        make()


def test_two_runs_on_one_output(make, tmp_path):
    folder = PartsFolder(tmp_path / "a.parquet.parts")
    folder.claim({})
    with pytest.raises(ValueError, match="another process is making this index"):
        make()


def test_files_that_cannot_be_indexed(processor, tmp_path):
    arguments = {"output": tmp_path / "a.parquet", "processor": processor, "max_seq_length": 400}
    with pytest.raises(ValueError, match="rows.json: no such file"):
        index_file(tmp_path / "rows.json", image_folder=tmp_path, **arguments)
    (tmp_path / "rows.json").write_text("[]")
    with pytest.raises(ValueError, match="image folder .* does not exist"):
        index_file(tmp_path / "rows.json", image_folder=tmp_path / "none", **arguments)
    with pytest.raises(ValueError, match="row_format is 'coco', expected one of 'osd', 'llava', 'vsr'"):
        index_file(tmp_path / "rows.json", image_folder=tmp_path, row_format="coco", **arguments)
    with pytest.raises(ValueError, match="holds no rows"):
        index_file(tmp_path / "rows.json", image_folder=tmp_path, num_workers=0, progress=False, **arguments)


def test_an_index_of_other_settings_is_refused(make, make_processor, processor):
    index = make()

    def expected(processor, **changes):
        settings = {"row_format": "osd", "max_seq_length": 400, "region_style": "box"} | changes
        return make_header(processor, source=index.header.source, **settings)

    refuse_other(index, expected(processor), path="a.parquet")
    for header, message in (
        (expected(processor, max_seq_length=401), r"max_seq_length \(index 400, now 401\)"),
        (expected(processor, row_format="llava"), r"row_format \(index osd, now llava\)"),
        (expected(make_processor(num_world_tokens=6)), r"num_world_tokens \(index 5, now 6\)"),
        (expected(make_processor(enable_world=False)), r"num_world_tokens \(index 5, now 0\); .*enable_world"),
        (replace(expected(processor), tokenizer_sha256="x"), r"tokenizer_sha256 \(index [0-9a-f]{64}, now x\)"),
    ):
        with pytest.raises(ValueError, match=rf"the index a.parquet was made with other settings: {message}"):
            refuse_other(index, header, path="a.parquet")


def test_files_that_are_no_index(make, tmp_path):
    index = make()
    (tmp_path / "text").write_text("no parquet")
    with pytest.raises(ValueError, match="text: not a readable index"):
        Index.read(tmp_path / "text")
    with pytest.raises(ValueError, match="none.parquet: not a readable index"):
        Index.read(tmp_path / "none.parquet")
    replace(index, header=replace(index.header, format_version=9)).write(tmp_path / "old.parquet")
    with pytest.raises(ValueError, match="has format version 9, expected 1"):
        Index.read(tmp_path / "old.parquet")
    Index.read(tmp_path / "a.parquet")


def test_a_write_that_fails_leaves_the_old_index(make, tmp_path, monkeypatch):
    index = make()
    before = (tmp_path / "a.parquet").read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        index.write(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == before
    assert not list(tmp_path.glob(".a.parquet*"))


def test_the_hash_covers_content_and_not_place(make):
    index = make()

    def changed(**columns):
        table = index.table
        for name, values in columns.items():
            place = SCHEMA.get_field_index(name)
            table = table.set_column(place, SCHEMA.field(name), [values])
        return replace(index, table=table).sha256

    rows = len(index.table)
    assert changed(offset=np.zeros(rows, np.int64), shard=np.zeros(rows, np.int32)) == index.sha256
    assert changed(width=np.zeros(rows, np.int32)) != index.sha256
    assert changed(image_sha256=["0"] * rows) != index.sha256
    source = replace(index.header.source, name="moved.json", mtime_ns=1)
    assert replace(index, header=replace(index.header, source=source)).sha256 == index.sha256
    source = replace(source, sha256="other")
    assert replace(index, header=replace(index.header, source=source)).sha256 != index.sha256


KILLED = """
import sys, time
from theworld.data.indexing import file as module
from theworld.data.indexing import workers as index_workers
from theworld.data.indexing.file import index_file
from theworld.data.processor import TheWorldProcessor

module.PART_ROWS = 4
original = index_workers._make_part

def slow(part):
    time.sleep(0.2)
    return original(part)

index_workers._make_part = slow
path, images, base, output = sys.argv[1:]
processor = TheWorldProcessor.from_pretrained(base, num_world_tokens=5, world_image_size=16)
settings = {"max_seq_length": 400, "num_workers": 2, "progress": False}
index_file(path, image_folder=images, output=output, processor=processor, **settings)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_makes_the_same_bytes(make, source, processor, tmp_path):
    """SIGKILL to the parent alone: its workers end by themselves, and the next run finds what they finished."""
    processor.save_pretrained(tmp_path / "base")
    make("whole.parquet")
    arguments = [*map(str, source), str(tmp_path / "base"), str(tmp_path / "a.parquet")]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
    parts = tmp_path / "a.parquet.parts"
    deadline = time.monotonic() + 60
    while len(list(parts.glob("part-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a.parquet").exists()
    assert 2 <= len(list(parts.glob("part-*"))) < 6
    while True:  # the lock goes with the last worker
        try:
            make()
            break
        except ValueError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()

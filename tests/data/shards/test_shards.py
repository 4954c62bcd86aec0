"""Written shards: plain tars of the very bytes, the same every time, whole after any interruption, and no others."""

import json
import os
import signal
import subprocess
import tarfile
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import webdataset

from tests.shard_parts import index_of, make_source
from theworld.data.indexing.index import Index
from theworld.data.shards.store import ShardStore
from theworld.data.shards.writer import write_shards

SHARD_BYTES = 1 << 16


@pytest.fixture
def source():
    return make_source(30, without_image=(4, 29))


def _write(source, folder, **changes):
    return write_shards(source, index_of(source), folder, **{"shard_bytes": SHARD_BYTES, "progress": False} | changes)


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_python_and_tar_read_the_very_bytes(source, tmp_path):
    made = _write(source, tmp_path)
    assert len(made.header.shards) > 2
    seen, listed_names = [], []
    for shard in made.header.shards:
        with tarfile.open(tmp_path / shard.name) as tar:
            for member in tar:
                number, kind = int(member.name[:9]), member.name[9:]
                expected = source.rows[number] if kind == ".json" else source.images[number]
                assert tar.extractfile(member).read() == expected
                assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
                seen.append((number, kind))
        listed = subprocess.run(["tar", "-tf", tmp_path / shard.name], capture_output=True, check=True, text=True)
        listed_names += listed.stdout.split()
        assert (tmp_path / shard.name).stat().st_size == shard.bytes <= SHARD_BYTES
    extensions = (".jpg", ".png", ".jpeg", ".webp")
    numbers = [i for i in range(30) if i not in (4, 29)]
    assert listed_names == [f"{number:09d}{kind}" for number, kind in seen]
    assert seen == [item for i in numbers for item in ((i, extensions[i % 4]), (i, ".json"))]


def test_webdataset_reads_every_row(source, tmp_path):
    made = _write(source, tmp_path)
    paths = [str(tmp_path / shard.name) for shard in made.header.shards]
    samples = list(webdataset.WebDataset(paths, shardshuffle=False))
    assert [json.loads(sample["json"])["id"] for sample in samples] == [
        f"row-{i}" for i in range(30) if i not in (4, 29)
    ]
    for sample in samples:
        image = next(value for key, value in sample.items() if key in ("jpg", "png", "jpeg", "webp"))
        assert image == source.images[int(sample["__key__"].rsplit("/", 1)[-1])]


def test_the_index_says_where_all_lies(source, tmp_path):
    before = index_of(source)
    made = _write(source, tmp_path)
    assert made.sha256 == before.sha256
    assert made.verdicts == before.verdicts
    assert made.column("shard")[[4, 29]].tolist() == [-1, -1]
    for number in range(30):
        if number in (4, 29):
            continue
        tar = (tmp_path / made.header.shards[made.column("shard")[number]].name).read_bytes()
        for kind, offset, size in (("rows", "offset", "size"), ("images", "image_offset", "image_bytes")):
            first = made.column(offset)[number]
            assert tar[first : first + made.column(size)[number]] == getattr(source, kind)[number]
    written = Index.read(tmp_path / "index.parquet")
    assert written.table.equals(made.table)
    assert written.header == made.header
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)


def test_same_rows_same_bytes(source, tmp_path):
    _write(source, tmp_path / "a")
    _write(source, tmp_path / "b")
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    source.images[7] = source.images[7][:-1] + b"x"
    _write(source, tmp_path / "c")
    assert _files(tmp_path / "a") != _files(tmp_path / "c")


def test_a_row_larger_than_a_shard_gets_its_own(tmp_path):
    source = make_source(3)
    source.images[1] = bytes(3 * SHARD_BYTES)
    made = _write(source, tmp_path)
    assert made.column("shard").tolist() == [0, 1, 2]
    assert ShardStore(made, tmp_path).image_bytes(1) == source.images[1]


class Dying:
    """A source that ends the process, or raises, when a row is asked for."""

    name = "dying"

    def __init__(self, source, row, *, kill):
        self.source, self.row, self.kill = source, row, kill

    def row_bytes(self, number):
        return self.source.row_bytes(number)

    def image_bytes(self, number):
        if number == self.row:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("the disk is gone")
        return self.source.image_bytes(number)


@pytest.mark.parametrize("kill", [True, False], ids=["SIGKILL", "error"])
def test_interrupted_and_resumed_is_as_if_never(source, tmp_path, kill):
    """Interrupted three times, each time in another shard: what was complete is kept, the rest is as in one go."""
    _write(source, tmp_path / "whole")
    folder = tmp_path / "resumed"
    kept = []
    for row in (1, 14, 28):
        dying = Dying(source, row, kill=kill)
        if kill:
            child = get_context("fork").Process(
                target=write_shards, args=(dying, index_of(source), folder), kwargs={"shard_bytes": SHARD_BYTES}
            )
            child.start()
            child.join()
            assert child.exitcode == -signal.SIGKILL
        else:
            with pytest.raises(OSError, match="the disk is gone"):
                write_shards(dying, index_of(source), folder, shard_bytes=SHARD_BYTES, progress=False)
            assert not list(folder.glob(".*.draft"))
        assert not (folder / "index.parquet").exists()
        kept.append(len(list(folder.glob("*.tar"))))
    assert kept[0] < kept[1] < kept[2]
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    _write(source, folder)
    assert {name: (folder / name).stat().st_mtime_ns for name in stamps} == stamps  # not written again
    assert _files(folder) == _files(tmp_path / "whole")


def test_a_complete_folder_is_checked_and_kept_but_damage_is_repaired(source, tmp_path):
    made = _write(source, tmp_path)
    whole = _files(tmp_path)
    untouched = tmp_path / made.header.shards[0].name
    stamp = untouched.stat().st_mtime_ns
    damaged = tmp_path / made.header.shards[1].name
    content = bytearray(damaged.read_bytes())
    content[5000] ^= 1
    damaged.write_bytes(content)
    sums = (tmp_path / "SHA256SUMS").read_text()
    (tmp_path / "SHA256SUMS").write_text(sums + "0123  shard-00")  # torn: a process died while writing it
    again = _write(source, tmp_path)
    assert again.table.equals(made.table)
    assert _files(tmp_path) == whole
    assert untouched.stat().st_mtime_ns == stamp


def test_a_folder_of_other_shards_is_refused(source, tmp_path):
    _write(source, tmp_path)
    with pytest.raises(ValueError, match="holds other shards, .* choose an empty folder"):
        _write(source, tmp_path, shard_bytes=2 * SHARD_BYTES)
    source.rows[3] = source.rows[3].replace(b"row-3", b"row-x")
    with pytest.raises(ValueError, match="holds other shards"):
        _write(source, tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="found 'tars without SHA256SUMS'"):
        _write(source, tmp_path)


def test_two_writers_do_not_meet(source, tmp_path):
    class Nested(Dying):
        def image_bytes(self, number):
            with pytest.raises(ValueError, match="another process is writing shards there"):
                _write(self.source, tmp_path)
            return self.source.image_bytes(number)

    made = write_shards(Nested(source, 0, kill=False), index_of(source), tmp_path, shard_bytes=1 << 20, progress=False)
    assert ShardStore(made, tmp_path).row_bytes(0) == source.rows[0]


@pytest.mark.parametrize("change", ["image", "row", "row of the same size"])
def test_rows_that_changed_since_they_were_indexed_stop_the_writer(source, tmp_path, change):
    index = index_of(source)
    if change == "image":
        source.images[3] += b" "
    else:
        source.rows[3] = source.rows[3].replace(b"row-3", b"row-33" if change == "row" else b"row-4")
    with pytest.raises(ValueError, match="memory, row 3, id 'row-3': found .* the source changed since it was indexed"):
        write_shards(source, index, tmp_path, shard_bytes=SHARD_BYTES, progress=False)
    assert not list(tmp_path.glob("*.tar"))


def test_a_shard_written_again_differently_is_refused(source, tmp_path):
    """Its note and what was written now disagree: the image changed and nobody checked its hash."""
    made = _write(source, tmp_path)
    (tmp_path / made.header.shards[0].name).unlink()
    index = index_of(source)
    source.images[0] = bytes(len(source.images[0]))
    with pytest.raises(ValueError, match="written again it has sha256 .* begin in an empty folder"):
        write_shards(source, index, tmp_path, shard_bytes=SHARD_BYTES, progress=False)


def test_settings_that_cannot_work_are_refused(source, tmp_path):
    with pytest.raises(ValueError, match="shard_bytes is 1000, expected at least"):
        _write(source, tmp_path, shard_bytes=1000)
    with pytest.raises(ValueError, match="no row has an image"):
        _write(make_source(2, without_image=(0, 1)), tmp_path)
    index = index_of(source)
    column = index.table.schema.get_field_index("row_crc32")
    unknown = index.table.set_column(column, "row_crc32", [np.full(30, -1)])
    with pytest.raises(ValueError, match="rows have no checksum"):
        write_shards(source, replace(index, table=unknown), tmp_path, progress=False)

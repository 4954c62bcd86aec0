"""Every row that cannot be had is named, whatever happened to its shard, and no other."""

import re
import tarfile

import pytest

from tests.range_server import RangeServer
from tests.shard_parts import FAULTS, edit, index_of, make_source
from theworld.data.shards.remote import RemoteBytes
from theworld.data.shards.tar_check import check_shards
from theworld.data.shards.writer import write_shards

ROWS = 30


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "shards"


@pytest.fixture
def index(folder):
    source = make_source(ROWS, without_image=(4,))
    return write_shards(source, index_of(source), folder, shard_bytes=1 << 16, progress=False)


@pytest.fixture
def server(index, folder):
    with RangeServer(folder) as running:
        yield running


def _rows(index, shard):
    return [row for row in range(ROWS) if index.column("shard")[row] == shard]


def test_whole_shards_are_intact_in_a_folder_and_by_http(index, folder, server, monkeypatch):
    # Members lie across what is read at a time.
    monkeypatch.setattr("theworld.data.shards.tar_check._CHUNK", 5000)
    for root in (folder, server.url):
        report = check_shards(index, root, progress=False)
        assert (report.rows, report.lost, report.faults, report.is_intact) == (ROWS - 1, (), (), True)
        assert report.summary() == "29 rows in shards, 29 intact, 0 lost"
    assert len(server.ranges) == sum(-(-shard.bytes // 5000) for shard in index.header.shards)  # each byte once


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_loses_the_row_that_the_store_refuses_and_no_other(index, folder, server, fault):
    change, message = FAULTS[fault]
    edit(folder, index, 13, change)
    for root in (folder, server.url):
        report = check_shards(index, root, progress=False)
        assert [(lost.row, lost.id) for lost in report.lost] == [(13, "row-13")]
        assert message in report.lost[0].reason
        name = index.header.shards[index.column("shard")[13]].name
        assert report.faults[0].startswith(f"{name}: found sha256")
        assert not report.is_intact
        assert f"lost: row 13, id 'row-13', {name}: {message}" in report.summary()


def test_where_other_readers_stop_without_a_word(index, folder):
    """What the check is for: after one bad header tarfile gives fewer members and no error."""
    edit(folder, index, 13, FAULTS["flipped byte in the header"][0])
    shard = index.column("shard")[13]
    with tarfile.open(folder / index.header.shards[shard].name) as tar:
        found = len(list(tar))
    assert found == 2 * _rows(index, shard).index(13) < 2 * len(_rows(index, shard))


def test_a_cut_shard_loses_the_rows_behind_the_cut(index, folder):
    rows = _rows(index, 1)
    path = folder / index.header.shards[1].name
    whole = path.read_bytes()
    cut = int(index.column("offset")[rows[2]]) + 3  # inside the JSON of its third row
    path.write_bytes(whole[:cut])
    report = check_shards(index, folder, progress=False)
    assert [lost.row for lost in report.lost] == rows[2:]
    assert all(lost.reason.startswith(f"truncated: the shard ends at byte {cut}") for lost in report.lost)
    assert f"{path.name}: found {cut} bytes, expected {len(whole)}" in report.summary()


def test_a_missing_shard_loses_its_rows(index, folder, server):
    name = index.header.shards[2].name
    (folder / name).unlink()
    for root in (folder, server.url):
        report = check_shards(index, root, progress=False)
        assert [lost.row for lost in report.lost] == _rows(index, 2)
        assert {lost.reason.partition(":")[0] for lost in report.lost} == {"missing shard"}
        assert report.faults == (f"{name}: missing; fetch it again, or write it again from the source",)


def test_bytes_that_no_row_needs_are_a_fault_without_a_loss(index, folder):
    first, second = (folder / index.header.shards[shard].name for shard in (0, 1))
    content = bytearray(first.read_bytes())
    content[-1] = 1  # in the zeros of the end
    first.write_bytes(content)
    second.write_bytes(second.read_bytes() + bytes(512))  # as if a member were added
    report = check_shards(index, folder, progress=False)
    assert report.lost == ()
    assert re.match(f"{first.name}: found sha256", report.faults[0])
    assert re.match(f"{second.name}: found \\d+ bytes, expected", report.faults[1])
    assert not report.is_intact


def test_a_server_out_of_reach_is_an_error_and_not_a_loss(index, server, monkeypatch):
    monkeypatch.setattr(
        "theworld.data.shards.tar_check.open_bytes", lambda url: RemoteBytes(url, give_up_after=0.1, first_wait=0.01)
    )
    server.always = "503"
    with pytest.raises(OSError, match="shard-000000.tar, bytes 0 to .*: cannot be read"):
        check_shards(index, server.url, progress=False)
    server.close()
    with pytest.raises(OSError, match="shard-000000.tar, size: cannot be read"):
        check_shards(index, server.url, progress=False)


def test_an_index_without_shards_is_refused(folder):
    with pytest.raises(ValueError, match="describes no shards"):
        check_shards(index_of(make_source(3)), folder)

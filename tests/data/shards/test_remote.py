"""Ranged reads: exact bytes, bounded patience, and errors that say which bytes of which shard."""

import os
import pickle
import time

import pytest

from tests.range_server import RangeServer
from theworld.data.indexing.table import SourceFile
from theworld.data.shards.remote import MAX_OPEN_FILES, FolderBytes, RemoteBytes, open_bytes

CONTENT = os.urandom(100_000)
SHARD = SourceFile(name="shard-000000.tar", bytes=len(CONTENT), sha256="0" * 64)
ABSENT = SourceFile(name="shard-000001.tar", bytes=10, sha256="0" * 64)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / SHARD.name).write_bytes(CONTENT)
    return tmp_path


@pytest.fixture
def server(folder):
    with RangeServer(folder) as running:
        yield running


@pytest.fixture
def remote(server):
    return RemoteBytes(server.url + "/", request_timeout=0.2, give_up_after=0.5, first_wait=0.01)


@pytest.fixture(params=["folder", "http"])
def source(request, folder):
    return FolderBytes(folder) if request.param == "folder" else request.getfixturevalue("remote")


def test_exact_bytes(source):
    for first, size in ((0, 1), (0, len(CONTENT)), (7, 5000), (99_999, 1), (50, 0)):
        assert source.read(SHARD, first, size) == CONTENT[first : first + size]
    assert source.size(SHARD) == len(CONTENT)
    assert pickle.loads(pickle.dumps(source)).read(SHARD, 3, 4) == CONTENT[3:7]


def test_absent_short_and_ill_named_shards(source):
    for ask in (lambda: source.size(ABSENT), lambda: source.read(ABSENT, 0, 1)):
        with pytest.raises(FileNotFoundError, match=ABSENT.name):
            ask()
    with pytest.raises(ValueError, match=f"{SHARD.name}: found 50 bytes from byte 99950 on, expected 51; .* cut short"):
        source.read(SHARD, 99_950, 51)
    with pytest.raises((ValueError, OSError), match="'../secret.tar' is not a plain file name"):
        source.read(SourceFile(name="../secret.tar", bytes=1, sha256=""), 0, 1)


def test_open_files_are_bounded(folder):
    source = FolderBytes(folder)
    for number in range(MAX_OPEN_FILES + 20):
        name = f"shard-{number + 1:06d}.tar"
        (folder / name).write_bytes(b"%06d" % number)
        assert source.read(SourceFile(name=name, bytes=6, sha256=""), 0, 6) == b"%06d" % number
    open_now = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
    assert sum(path.startswith(str(folder)) for path in open_now) == MAX_OPEN_FILES
    assert source.read(SHARD, 0, 5) == CONTENT[:5]


def _is_link(descriptor):
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


@pytest.mark.parametrize("fault", ["503", "drop", "stall"])
def test_a_fault_that_passes_is_tried_again(remote, server, fault):
    server.faults.extend([fault] * 2)
    assert remote.read(SHARD, 10, 5000) == CONTENT[10:5010]
    assert not server.faults


@pytest.mark.parametrize("fault", ["503", "drop", "stall"])
def test_a_fault_that_stays_is_an_error_in_bounded_time(remote, server, fault):
    server.always = fault
    begun = time.monotonic()
    with pytest.raises(
        OSError, match=rf"{server.url}/{SHARD.name}, bytes 10 to 5010: cannot be read, [2-9]\d* tries in"
    ):
        remote.read(SHARD, 10, 5000)
    assert time.monotonic() - begun < 5  # half a second, and a request that was under way


def test_a_server_that_is_gone_is_an_error_in_bounded_time(remote, server):
    server.close()
    for ask in (lambda: remote.read(SHARD, 0, 5), lambda: remote.size(SHARD)):
        with pytest.raises(OSError, match=f"{SHARD.name}, .*: cannot be read, .* check the network and the server"):
            ask()


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("403", OSError, "cannot be read .*403.*; correct the URL"),
        ("404", FileNotFoundError, "bytes 10 to 5010: not found; correct the URL"),
        ("whole", OSError, "support range requests"),
    ],
)
def test_a_fault_that_cannot_pass_is_not_tried_again(remote, server, fault, error, message):
    server.always = fault
    server.faults.append(fault)
    with pytest.raises(error, match=message):
        remote.read(SHARD, 10, 5000)
    assert not server.faults
    server.always = None
    assert remote.read(SHARD, 10, 5000) == CONTENT[10:5010]


@pytest.mark.parametrize(
    "url",
    [
        "simplecache::http://host/shards",
        "reference://host/shards",
        "github://user:repo@main/shards",
        "file:///shards",
        "http://host/shards?signature=secret",
    ],
)
def test_other_urls_are_refused_and_secrets_not_repeated(url):
    with pytest.raises(ValueError, match="expected a folder or a plain URL of http, https") as caught:
        open_bytes(url)
    assert "secret" not in str(caught.value)


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="shards at host holds a password") as caught:
        open_bytes("https://user:hunter2@host/shards")
    assert "hunter2" not in str(caught.value)


def test_a_path_is_a_folder_and_a_url_is_not(folder):
    assert isinstance(open_bytes(folder), FolderBytes)
    assert isinstance(open_bytes("s3://bucket/shards"), RemoteBytes)

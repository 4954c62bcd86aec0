"""Local files and folders, and a commit of a data set in the Hub's own cache; no network."""

from __future__ import annotations

import hashlib

import pytest

from tests.evaluation.benchmarks import published
from theworld.evaluation.benchmarks.cvbench import PATTERNS, cvbench
from theworld.evaluation.benchmarks.places import locate, sha256_of

COMMIT = "bc284db50d036958861cb60cdd7b77612052ce0d"
NAME = "nyu-visionx/CV-Bench"


@pytest.fixture
def cache(tmp_path):
    """What the Hub's client leaves on disk after it has fetched a commit."""
    snapshot = tmp_path / "hub" / "datasets--nyu-visionx--CV-Bench" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    published.write_cv_bench(snapshot)
    return tmp_path / "hub"


def test_a_commit_of_a_data_set_is_found(cache):
    found = locate(NAME, PATTERNS, revision=COMMIT, cache_dir=cache)
    assert [path.name for path in found] == ["test_2d.parquet", "test_3d.parquet"]
    assert len(cvbench(found).items) == 16


@pytest.mark.parametrize("revision", [None, "main", "bc284db", COMMIT.upper()])
def test_anything_but_a_whole_commit_is_refused(cache, revision):
    with pytest.raises(ValueError, match=f"found revision {revision!r} for {NAME}, expected a commit of 40"):
        locate(NAME, PATTERNS, revision=revision, cache_dir=cache)


def test_a_commit_that_cannot_be_fetched_is_named(cache):
    with pytest.raises(ValueError, match=f"{NAME} at {'0' * 40}: could not be fetched"):
        locate(NAME, PATTERNS, revision="0" * 40, cache_dir=cache)


def test_local_places(tmp_path):
    folder = published.write_cv_bench(tmp_path)
    assert locate(str(folder / "test_3d.parquet"), PATTERNS) == [folder / "test_3d.parquet"]
    assert len(locate(str(folder), PATTERNS)) == 2
    with pytest.raises(ValueError, match="found no file that matches val"):
        locate(str(folder), ("val*.parquet",))
    with pytest.raises(ValueError, match="found revision 'abc' for the local"):
        locate(str(folder), PATTERNS, revision="abc")
    with pytest.raises(ValueError, match="no such file or folder, and no name of a data set"):
        locate("../elsewhere/or/nowhere", PATTERNS)


def test_hashes_of_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bin").write_bytes(b"abc")
    assert sha256_of([tmp_path / "a" / "x.bin"]) == {"a/x.bin": hashlib.sha256(b"abc").hexdigest()}

"""What an index is written over, and what a restart throws away."""

import pytest

from tests.data.indexing.conftest import ROWS
from theworld.data.indexing.parts import PartsFolder


def test_an_output_that_is_something_else_is_never_written_over(make, source, tmp_path):
    rows, _ = source
    before = rows.read_bytes()
    with pytest.raises(ValueError, match="exists and is no index"):
        make(rows)
    assert rows.read_bytes() == before
    with pytest.raises(ValueError, match="is a folder, expected the name of a parquet file"):
        make(tmp_path)
    make()
    make()  # an index may be made anew


def test_restart_throws_parts_away_but_not_those_of_a_run_at_work(make, tmp_path):
    other = PartsFolder(tmp_path / "a.parquet.parts")
    other.claim({"of": "another"})
    with pytest.raises(ValueError, match="another process is making this index"):
        make(restart=True)
    assert (other.path / "facts.json").exists()
    other.release()
    with pytest.raises(ValueError, match="these changed"):
        make()
    assert len(make(restart=True).table) == ROWS
    assert not other.path.exists()

"""A small source with faults, and the making of its index in small parts."""

import pytest

from theworld.data.indexing import file as module
from theworld.data.indexing.file import index_file

ROWS = 23


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(module, "PART_ROWS", 4)


@pytest.fixture
def source(write_osd, make_row):
    rows = [make_row(i, turns=1 + i % 3) for i in range(ROWS)]
    rows[5]["bbox"] = rows[5]["bbox"][1:]
    rows[17]["id"] = "row-3"
    rows[20]["filename"] = "absent"
    return write_osd(rows)


@pytest.fixture
def make(source, processor, tmp_path):
    def run(output="a.parquet", **changes):
        path, images = source
        settings = {"max_seq_length": 400, "num_workers": 0, "progress": False} | changes
        return index_file(path, image_folder=images, output=tmp_path / output, processor=processor, **settings)

    return run

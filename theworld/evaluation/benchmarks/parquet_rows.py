"""Rows of parquet files as Hugging Face's `datasets` writes them: text in columns, images as encoded bytes.

Columns are read with pyarrow and images are decoded by our own bounded decoder, so that no code of a data set runs and
nothing is unpickled. Text is read at once; of the images one row group at a time is in memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from theworld.data.pictures.images import MAX_IMAGE_BYTES
from theworld.data.rows.faults import MISSING_IMAGE, TOO_LARGE, RowError
from theworld.data.rows.row import JsonObject

MAX_TEXT_BYTES = 1 << 30
"""Most bytes of text columns of a file that are read."""

MAX_GROUP_BYTES = 4 << 30
"""Most bytes of the images of a row group that are read."""


class ParquetRows:
    """The rows of some files, one after another.

    Args:
        paths: The files, in order.
        needed: Columns without which a file is of another schema.
        images: Those of them, and of those that may lack, which hold images: `{"bytes", "path"}`, or bytes alone.

    Attributes:
        rows: Every other column of every row.

    Raises:
        ValueError: A file cannot be read, lacks a column, or is too large.
    """

    def __init__(self, paths: Sequence[Path], *, needed: Sequence[str], images: Sequence[str]):
        self.paths = tuple(paths)
        self.images = tuple(images)
        self._files = [_opened(path) for path in self.paths]
        self.rows: list[JsonObject] = []
        starts = []
        for path, file in zip(self.paths, self._files, strict=True):
            names = file.schema_arrow.names
            if absent := [name for name in needed if name not in names]:
                raise ValueError(f"{path}: lacks the columns {absent}, found {names}; it has another schema.")
            text = [name for name in names if name not in images]
            _check_size(file, text, range(file.num_row_groups), MAX_TEXT_BYTES, path)
            starts.append(len(self.rows))
            self.rows += file.read(columns=text).to_pylist()
        self._starts = starts
        self._column = lru_cache(len(images))(self._read_column)

    def place(self, number: int) -> str:
        """File and row of a row number over all files, for messages."""
        file = bisect_right(self._starts, number) - 1
        return f"{self.paths[file]}, row {number - self._starts[file]}"

    def has_image(self, number: int, column: str) -> bool:
        """Whether the row has an image in this column."""
        return self._image(number, column) is not None

    def image(self, number: int, column: str) -> bytes:
        """The encoded image of a row.

        Raises:
            RowError: There is none, or it is too large.
        """
        found = self._image(number, column)
        if found is None:
            raise RowError(MISSING_IMAGE, f"{column} holds no bytes, expected an encoded image; fetch the file again.")
        if len(found) > MAX_IMAGE_BYTES:
            raise RowError(TOO_LARGE, f"{column} has {len(found)} bytes, expected at most {MAX_IMAGE_BYTES}.")
        return found

    def _image(self, number: int, column: str) -> bytes | None:
        file = bisect_right(self._starts, number) - 1
        groups = self._files[file].metadata
        ends = list(accumulate(groups.row_group(group).num_rows for group in range(groups.num_row_groups)))
        row = number - self._starts[file]
        group = bisect_right(ends, row)
        value = self._column(file, group, column)[row - (ends[group - 1] if group else 0)].as_py()
        value = value.get("bytes") if isinstance(value, dict) else value
        return value if isinstance(value, bytes) and value else None

    def _read_column(self, file: int, group: int, column: str) -> pa.ChunkedArray:
        opened = self._files[file]
        if column not in opened.schema_arrow.names:
            rows = opened.metadata.row_group(group).num_rows
            return pa.chunked_array([pa.nulls(rows)])
        _check_size(opened, [column], [group], MAX_GROUP_BYTES, self.paths[file])
        return opened.read_row_group(group, columns=[column])[column]


def _opened(path: Path) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path}: not a readable parquet file ({error}); fetch it again.") from error


def _check_size(
    file: parquet.ParquetFile, columns: Sequence[str], groups: Sequence[int] | range, limit: int, path: Path
) -> None:
    """Refuse columns that would take more memory than `limit`, by what the file says of them."""
    size = 0
    for group in groups:
        row_group = file.metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            if column.path_in_schema.split(".")[0] in columns:
                size += column.total_uncompressed_size
    if size > limit:
        raise ValueError(
            f"{path}: columns {list(columns)} take {size} bytes, expected at most {limit}; write the file with smaller "
            "row groups."
        )

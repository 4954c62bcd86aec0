"""What every row of a source weighs in tokens, where it lies, and which rows cannot be used, and why.

The plan is made from an index, so nothing is dropped, cut or discovered later in silence. `build` (in memory) and
`file` (on disk) make one; here it is read and asked.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from theworld.data.indexing.table import CONTENT_COLUMNS, PICTURE_COLUMNS, IndexHeader, read_table, write_table
from theworld.data.rows.faults import OK

_Ints = NDArray[np.int64]
_BATCH = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Index:
    """One entry a row of the source, in its order; `eligible` rows are the samples.

    Attributes:
        name: Name of the split or file, for messages.
        header: What it was made from.
        table: Columns of `theworld.data.indexing.table.SCHEMA`.
    """

    name: str
    header: IndexHeader
    table: pa.Table

    @classmethod
    def read(cls, path: str | Path, *, name: str | None = None) -> Index:
        """Read a file that `write` or `theworld data index` made.

        Args:
            path: The parquet file.
            name: Name for messages; the file's by default.

        Raises:
            ValueError: Not an index, or one of another format version.
        """
        table, header = read_table(path)
        return cls(name=name or str(path), header=header, table=table)

    def write(self, path: str | Path) -> None:
        """Write as one parquet file, atomically."""
        write_table(self.table, self.header, path)

    def __len__(self) -> int:
        """Number of samples (eligible rows)."""
        return len(self.eligible)

    @property
    def max_seq_length(self) -> int:
        """Longest sample allowed, in tokens."""
        return self.header.settings.max_seq_length

    @cached_property
    def is_ok(self) -> NDArray[np.bool_]:
        """bool[R]: the row is a sample."""
        return pc.equal(self.table["verdict"].cast(pa.string()), OK).to_numpy(zero_copy_only=False)

    @cached_property
    def eligible(self) -> _Ints:
        """int64[S]: row numbers of the samples."""
        return np.flatnonzero(self.is_ok)

    @cached_property
    def lengths(self) -> _Ints:
        """int64[R]: tokens of the kept turns with every placeholder; 0 for an excluded row."""
        return self.column("text_tokens") + self.column("image_tokens") + self.column("world_tokens")

    @cached_property
    def targets(self) -> _Ints:
        """int64[R]: target tokens of the kept turns."""
        return self.column("target_tokens")

    @cached_property
    def num_images(self) -> _Ints:
        """int64[R]: images of the row; 0 for an excluded row."""
        return self.column("num_images")

    @cached_property
    def num_turns(self) -> _Ints:
        """int64[R]: turns of the row."""
        return self.column("turns")

    @cached_property
    def kept_turns(self) -> _Ints:
        """int64[R]: whole turns kept, from the first on."""
        return self.column("kept_turns")

    @property
    def verdicts(self) -> tuple[str, ...]:
        """`ok`, or why the row is excluded."""
        return tuple(self.table["verdict"].to_pylist())

    def column(self, name: str) -> _Ints:
        """int64[R]: a column of numbers."""
        return self.table[name].to_numpy().astype(np.int64)

    def number(self, name: str, row: int) -> int:
        """One row's entry in a column of numbers."""
        return self.table[name][row].as_py()

    def text(self, name: str, row: int) -> str:
        """One row's entry in a column of strings."""
        return self.table[name][row].as_py()

    @cached_property
    def sha256(self) -> str:
        """What a resumed run must find unchanged: source, tokenizer, settings and content, wherever the bytes lie."""
        settings = sorted(asdict(self.header.settings).items())
        return self._digest((self.header.tokenizer_sha256, settings), CONTENT_COLUMNS)

    @cached_property
    def pictures_sha256(self) -> str:
        """What a cache of features must find unchanged: which rows are samples, and what their pictures show.

        Tokens do not count, so indices that differ in them, as those of other world token budgets do, share a cache
        as long as the same turns fit.
        """
        return self._digest((self.header.settings.region_style,), PICTURE_COLUMNS)

    def _digest(self, facts: tuple[object, ...], columns: Sequence[str]) -> str:
        digest = hashlib.sha256(repr((self.header.row_format, self.header.source.sha256, *facts)).encode())
        for name in columns:
            column = self.table[name]
            if pa.types.is_string(column.type):
                for batch in range(0, len(column), _BATCH):
                    values = column.slice(batch, _BATCH).to_pylist()
                    digest.update("".join(f"{value}\0" for value in values).encode())
            else:
                digest.update(column.to_numpy().tobytes())
        digest.update(self.is_ok.tobytes())
        return digest.hexdigest()

    def verdict_counts(self) -> dict[str, int]:
        """Rows of each verdict code, `ok` first, then the most frequent."""
        counted = Counter(verdict.split(":")[0] for verdict in self.verdicts)
        return dict(sorted(counted.items(), key=lambda item: (item[0] != OK, -item[1], item[0])))

    def summary(self) -> str:
        """Rows, samples, dropped turns and exclusions by reason, in one line."""
        cut = (self.kept_turns < self.num_turns) & (self.kept_turns > 0)
        dropped = int((self.num_turns - self.kept_turns)[cut].sum())
        parts = [
            f"{self.name}: {len(self.table)} rows, {len(self)} ok",
            f"{dropped} trailing turns dropped from {int(cut.sum())} rows (max_seq_length {self.max_seq_length})",
        ]
        if len(self):
            lengths = self.lengths[self.eligible]
            parts.append(f"{lengths.min()}-{lengths.max()} tokens, {lengths.sum()} in all")
            parts.append(f"{self.targets.sum()} target tokens")
        parts += [f"{count} excluded ({code})" for code, count in sorted(self.verdict_counts().items()) if code != OK]
        return ", ".join(parts)

"""Writing shards: plain tars of rows and images, which other tools read too, and an index of where everything lies.

The same rows give the same bytes. A shard appears complete or not at all, and its sha256 is noted once it is on the
disk; a run that was cut short is simply started again, and keeps what it finds whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from theworld.data.indexing.index import Index
from theworld.data.indexing.table import SCHEMA, SourceFile, sync_folder
from theworld.data.shards.layout import ShardPlan, has_image, plan_shards
from theworld.data.shards.tar_member import member_header, member_names, padded
from theworld.data.stores import RowStore

SHARD_BYTES = 1 << 30
INDEX_NAME = "index.parquet"
SUMS_NAME = "SHA256SUMS"

_SMALLEST = 1 << 16
_LINE = re.compile(r"([0-9a-f]{64})  (shard-\d{6}\.tar)")
_Advance = Callable[[int], None]


def write_shards(
    store: RowStore,
    index: Index,
    output: str | Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: bool = True,
) -> Index:
    """Write every row that has an image, whatever its verdict, as `shard-000000.tar` and so on.

    Beside the shards lie `SHA256SUMS`, for `sha256sum -c`, and at the very end `index.parquet`. Called again after an
    interruption, it checks the shards that are noted as complete and writes the others.

    Args:
        store: Gives rows and images, which are checked against the index.
        index: Of the same rows.
        output: Folder of the shards, empty or of an earlier call with the same rows and size.
        shard_bytes: Most bytes of a shard, unless one row is larger.
        progress: Show a progress bar.

    Returns:
        The index with the places in the shards: what `output/index.parquet` holds.

    Raises:
        ValueError: The folder holds other shards, another process writes to it, or a row changed since it was indexed.
    """
    if shard_bytes < _SMALLEST:
        raise ValueError(f"shard_bytes is {shard_bytes}, expected at least {_SMALLEST}.")
    if (index.column("row_crc32")[has_image(index)] < 0).any():
        raise ValueError(
            f"{index.name}: rows have no checksum, which shards need; index them with `theworld data index`."
        )
    plan = plan_shards(index, shard_bytes=shard_bytes)
    if not len(plan.shard_bytes):
        raise ValueError(f"{index.name}: no row has an image, so there is nothing to write; check the image folder.")
    output = Path(output).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    shards = []
    with only_writer(output), byte_bar("writing shards", int(plan.shard_bytes.sum()), shown=progress) as advance:
        sums = _Sums(output, f"# theworld data shard: rows {index.sha256}, {shard_bytes} bytes a shard")
        for number, size in enumerate(plan.shard_bytes.tolist()):
            name = f"shard-{number:06d}.tar"
            if not sums.is_whole(name, size, advance):
                sums.note(name, _write_shard(output / name, _blocks(store, index, plan, number), size, advance))
            shards.append(SourceFile(name=name, bytes=size, sha256=sums.noted[name]))
        made = _with_places(index, plan, tuple(shards))
        made.write(output / INDEX_NAME)
    return made


def _write_shard(path: Path, blocks: Iterator[bytes], size: int, advance: _Advance) -> str:
    """Write a draft, flush it to the disk and rename it; the sha256 of what was written."""
    digest = hashlib.sha256()
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            for block in blocks:
                file.write(block)
                digest.update(block)
                advance(len(block))
            end = bytes(size - file.tell())
            file.write(end)
            digest.update(end)
            advance(len(end))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
    return digest.hexdigest()


def _blocks(store: RowStore, index: Index, plan: ShardPlan, shard: int) -> Iterator[bytes]:
    """The members of a shard one after another: header, contents, zeros to the next full block."""
    rows = plan.rows(shard)
    columns = [index.column(name)[rows].tolist() for name in ("image_bytes", "size", "row_crc32")]
    for row, *expected in zip(rows.tolist(), *columns, strict=True):
        image, json = store.image_bytes(row), store.row_bytes(row)
        found = [len(image), len(json), zlib.crc32(json)]
        if found != expected:
            raise ValueError(
                f"{store.name}, row {row}, id {index.text('id', row)!r}: found {found} (bytes of the image, bytes and "
                f"checksum of the JSON), expected {expected}; the source changed since it was indexed, "
                "index it again."
            )
        for name, content in zip(member_names(row, index.text("image", row)), (image, json), strict=True):
            yield member_header(name, len(content)) + content + bytes(padded(len(content)) - len(content))


def _with_places(index: Index, plan: ShardPlan, shards: tuple[SourceFile, ...]) -> Index:
    """The index with the rows' places in the shards in place of those in the source."""
    table = index.table
    for name, values in (("shard", plan.shard), ("offset", plan.row_offset), ("image_offset", plan.image_offset)):
        column = pa.array(values, type=SCHEMA.field(name).type)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return replace(index, table=table, header=replace(index.header, shards=shards))


class _Sums:
    """`SHA256SUMS`: the shards that are complete on the disk, in `sha256sum`'s own form.

    Args:
        folder: Of the shards.
        title: First line, a comment that says which rows and sizes the shards are of.

    Raises:
        ValueError: The folder holds shards of others.
    """

    def __init__(self, folder: Path, title: str):
        self.folder = folder
        self.path = folder / SUMS_NAME
        self.noted: dict[str, str] = {}
        # What follows the last line's end was being written when the process died, and is not believed.
        lines = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
        if lines[:1] != [title] and (lines or any(folder.glob("*.tar"))):
            raise ValueError(
                f"{folder}: holds other shards, found {lines[0] if lines else 'tars without ' + SUMS_NAME!r}, "
                f"expected {title!r}; choose an empty folder."
            )
        for line in lines[1:]:
            if match := _LINE.fullmatch(line):
                self.noted[match.group(2)] = match.group(1)
        draft = folder / f".{SUMS_NAME}.draft"
        draft.write_text("\n".join([title, *(f"{sha256}  {name}" for name, sha256 in self.noted.items()), ""]))
        os.replace(draft, self.path)

    def is_whole(self, name: str, size: int, advance: _Advance) -> bool:
        """True if the shard was noted and still has that sha256."""
        path = self.folder / name
        if name not in self.noted or not path.is_file() or path.stat().st_size != size:
            return False
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self.noted[name]:
                return False
        advance(size)
        return True

    def note(self, name: str, sha256: str) -> None:
        """Add a shard that is complete on the disk.

        Raises:
            ValueError: It was noted with another sha256.
        """
        if name in self.noted:
            if self.noted[name] != sha256:
                raise ValueError(
                    f"{self.folder / name}: written again it has sha256 {sha256}, expected {self.noted[name]}; "
                    "rows or images changed since the first shards were written, begin in an empty folder."
                )
            return
        self.noted[name] = sha256
        with self.path.open("a") as file:
            file.write(f"{sha256}  {name}\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder itself as a lock, which the system frees when its holder dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{folder}: another process is writing shards there; wait for it or end it.") from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def byte_bar(title: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar over `total` bytes; what it gives is told of every number of bytes done."""
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("", total=total)
        yield lambda size: bar.advance(task, size)

"""The index on disk: the columns of its parquet file, and the header that says what they were made from.

The header is one JSON object in the parquet schema's metadata, under the key `theworld`.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

FORMAT_VERSION = 1
HEADER_KEY = b"theworld"

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("offset", pa.int64()),  # of the row's JSON in the source; in its tar, for shards
        ("size", pa.int64()),  # bytes of the row's JSON
        ("row_crc32", pa.int64()),  # zlib.crc32 of them, -1 if not known
        ("image", pa.string()),  # path below the image folder, "" if not found
        ("image_bytes", pa.int64()),
        ("image_sha256", pa.string()),  # hexadecimal
        ("width", pa.int32()),  # upright, in pixels
        ("height", pa.int32()),
        ("turns", pa.int32()),
        ("kept_turns", pa.int32()),
        ("regions", pa.int32()),
        ("num_images", pa.int32()),
        ("text_tokens", pa.int32()),  # all that is neither image nor world placeholder, of the kept turns
        ("target_tokens", pa.int32()),
        ("image_tokens", pa.int32()),
        ("world_tokens", pa.int32()),
        ("verdict", pa.dictionary(pa.int32(), pa.string())),  # "ok", or "<code>: <details>"
        ("shard", pa.int32()),  # number in the header's `shards`, -1 outside tars
        ("image_offset", pa.int64()),  # of the image's bytes in its tar, -1 outside tars
    ]
)

PICTURE_COLUMNS = ("id", "image", "image_sha256", "width", "height", "turns", "kept_turns", "regions")
"""What `Index.pictures_sha256` covers besides the header."""

CONTENT_COLUMNS = (
    *PICTURE_COLUMNS,
    *("num_images", "text_tokens", "target_tokens", "image_tokens", "world_tokens"),
)
"""What `Index.sha256` covers besides the header: all but where the bytes lie, so that shards keep a folder's hash."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that an index describes.

    Attributes:
        name: File name without folders.
        bytes: Size.
        sha256: Of its bytes, hexadecimal.
        mtime_ns: Time of the last change when it was indexed, in nanoseconds; 0 if not recorded.
    """

    name: str
    bytes: int
    sha256: str
    mtime_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """What token counts and verdicts depend on, besides rows and tokenizer; lengths in tokens, sizes in pixels."""

    max_seq_length: int
    region_style: str
    num_image_tokens: int
    num_world_tokens: int
    world_image_size: int
    enable_world: bool


@dataclass(frozen=True, kw_only=True)
class IndexHeader:
    """What an index was made from.

    Attributes:
        format_version: Of the file.
        row_format: Name of the `RowFormat`.
        source: The rows.
        shards: The tars that hold rows and images, or none.
        tokenizer_sha256: Hash of the tokenizer and its special tokens.
        settings: What was counted how.
        package_version: Of the package that made it.
    """

    format_version: int = FORMAT_VERSION
    row_format: str
    source: SourceFile
    shards: tuple[SourceFile, ...] = ()
    tokenizer_sha256: str
    settings: IndexSettings
    package_version: str

    def to_json(self) -> bytes:
        """As one JSON object."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> IndexHeader:
        """From `to_json`."""
        fields = json.loads(raw)
        return cls(
            **fields
            | {
                "source": SourceFile(**fields["source"]),
                "shards": tuple(SourceFile(**shard) for shard in fields["shards"]),
                "settings": IndexSettings(**fields["settings"]),
            }
        )


def write_table(table: pa.Table, header: IndexHeader, path: str | Path) -> None:
    """Write atomically: a file in the same folder, flushed to the disk, then renamed.

    Args:
        table: Columns of `SCHEMA`.
        header: Goes into the metadata.
        path: The parquet file.
    """
    path = Path(path)
    table = table.cast(SCHEMA).replace_schema_metadata({HEADER_KEY: header.to_json()})
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            parquet.write_table(table, file, compression="zstd", use_dictionary=["verdict"], row_group_size=1 << 16)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    finally:
        Path(draft).unlink(missing_ok=True)
    sync_folder(path.parent)


def read_table(path: str | Path) -> tuple[pa.Table, IndexHeader]:
    """Columns and header.

    Raises:
        ValueError: No such file, not an index, or one of another format version.
    """
    path = Path(path)
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path}: not a readable index ({error}); make it with `theworld data index`.") from error
    raw = (table.schema.metadata or {}).get(HEADER_KEY)
    if raw is None:
        raise ValueError(f"{path}: a parquet file without our header, expected one made by `theworld data index`.")
    version = json.loads(raw).get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: has format version {version}, expected {FORMAT_VERSION}; make the index again.")
    return table.cast(SCHEMA).combine_chunks(), IndexHeader.from_json(raw)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file so that it holds all of `content` or what it held before, even after a power cut."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

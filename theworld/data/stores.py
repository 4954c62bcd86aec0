"""Where the bytes of rows and images come from: a JSON file and an image folder here, tar shards in `shards`."""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path
from typing import BinaryIO, Protocol

from theworld.data.indexing.index import Index
from theworld.data.pictures.images import MAX_IMAGE_BYTES
from theworld.data.rows.faults import MISSING_IMAGE, TOO_LARGE, RowError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


class RowStore(Protocol):
    """Random access to what an index describes; safe to pickle and to fork."""

    @property
    def name(self) -> str:
        """Of the source, for messages."""

    def row_bytes(self, number: int) -> bytes:
        """JSON of row `number` of the source.

        Raises:
            ValueError: The bytes are not there, or are not those that were indexed.
        """

    def image_bytes(self, number: int) -> bytes:
        """The encoded image of row `number`.

        Raises:
            ValueError: The image is missing, or is not the one that was indexed.
        """


class ImageFolder:
    """A folder of images, and which file a row's `filename` means.

    Args:
        folder: Folder below which every image lies.
        rows_path: The rows that it belongs to, for messages.
    """

    def __init__(self, folder: str | Path, *, rows_path: str | Path):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(
                f"image folder {self.folder} does not exist (for the rows of {rows_path}); "
                "unpack the images there or correct the path."
            )
        self._root = self.folder.resolve()

    def find(self, filename: str) -> str:
        """Path below the folder of the file that `filename` means, with its real extension.

        Raises:
            RowError: There is no such file, or it lies outside the folder.
        """
        relative = Path(filename)
        if relative.is_absolute() or ".." in relative.parts or "\\" in filename or "\0" in filename:
            raise RowError(
                MISSING_IMAGE, f"filename {filename!r} must be a plain path below the image folder; correct it."
            )
        names = [filename + extension for extension in EXTENSIONS]
        if relative.suffix.lower() in EXTENSIONS:
            names.insert(0, filename)
        for name in names:
            try:
                found = (self._root / name).is_file()
            except OSError as error:  # a name longer than the file system takes, a folder one may not enter
                raise RowError(MISSING_IMAGE, f"filename {filename[:80]!r} cannot be looked up ({error}).") from error
            if found:
                self._check_inside(name)
                return name
        raise RowError(
            MISSING_IMAGE,
            f"found no image {filename!r} with any of {', '.join(EXTENSIONS)} in {self.folder}; "
            "fetch the image, or remove the row.",
        )

    def read(self, name: str) -> bytes:
        """The bytes of an image that `find` found.

        Raises:
            RowError: The file has gone, lies outside the folder, cannot be read, or is too large.
        """
        self._check_inside(name)
        try:
            with (self._root / name).open("rb") as file:
                data = file.read(MAX_IMAGE_BYTES + 1)
        except OSError as error:
            raise RowError(MISSING_IMAGE, f"{name}: cannot be read ({error}); restore the file.") from error
        if len(data) > MAX_IMAGE_BYTES:
            raise RowError(TOO_LARGE, f"{name}: has more than {MAX_IMAGE_BYTES} bytes; shrink the image.")
        return data

    def _check_inside(self, name: str) -> None:
        if not (self._root / name).resolve().is_relative_to(self._root):
            raise RowError(
                MISSING_IMAGE, f"image {name!r} is a link to outside {self.folder}; copy the image into the folder."
            )


class FolderStore:
    """Rows in one JSON file, images in a folder; both checked against the index when they are read.

    Args:
        index: Index of the file.
        rows_path: The file that was indexed.
        image_folder: The folder that was indexed.

    Raises:
        ValueError: The file is not the one that was indexed.
    """

    def __init__(self, index: Index, *, rows_path: str | Path, image_folder: str | Path):
        self.index = index
        self.rows_path = Path(rows_path)
        self.images = ImageFolder(image_folder, rows_path=rows_path)
        self._file: BinaryIO | None = None
        _check_source(index, self.rows_path)

    @property
    def name(self) -> str:
        """The path of the rows."""
        return str(self.rows_path)

    def row_bytes(self, number: int) -> bytes:
        """JSON of row `number`; ValueError if it changed since it was indexed."""
        if self._file is None:
            self._file = self.rows_path.open("rb", buffering=0)
        size, offset = self.index.number("size", number), self.index.number("offset", number)
        raw = os.pread(self._file.fileno(), size, offset)
        crc32 = self.index.number("row_crc32", number)
        if len(raw) != size or (crc32 >= 0 and zlib.crc32(raw) != crc32):
            raise ValueError(
                f"{self._where(number)}: the bytes from {offset} on are not those that were indexed; restore the file "
                "or index it again."
            )
        return raw

    def image_bytes(self, number: int) -> bytes:
        """The encoded image of row `number`; RowError or ValueError if it is not the one that was indexed."""
        name = self.index.text("image", number)
        try:
            data = self.images.read(name)
        except RowError as error:
            raise RowError(error.code, f"{self._where(number)}: {error}") from error
        expected = self.index.text("image_sha256", number)
        if expected and (found := hashlib.sha256(data).hexdigest()) != expected:
            raise ValueError(
                f"{self._where(number)}: image {name} has sha256 {found}, expected {expected} as it was indexed; "
                "restore the image or index again."
            )
        return data

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None}

    def _where(self, number: int) -> str:
        return f"{self.rows_path}, row {number}, id {self.index.text('id', number)!r}"


def _check_source(index: Index, path: Path) -> None:
    """The same size, and the same time of change or, if a copy lost that, the same sha256."""
    source = index.header.source
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected the rows that {index.name} was made from.")
    status = path.stat()
    found, expected = f"{status.st_size} bytes", f"{source.bytes} bytes"
    if status.st_size == source.bytes:
        if status.st_mtime_ns == source.mtime_ns:
            return
        with path.open("rb") as file:
            found, expected = f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}", f"sha256 {source.sha256}"
        if found == expected:
            return
    raise ValueError(
        f"{path}: found {found}, expected {expected}, as the rows had ({source.name}) when {index.name} was made; "
        "restore the file or make the index again with `theworld data index`."
    )

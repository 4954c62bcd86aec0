"""PNG files that Pillow would not write, or not without holding all of their pixels."""

import zlib
from collections.abc import Callable
from pathlib import Path


def chunks(header: bytes, body: bytes) -> bytes:
    """A PNG of these two chunks."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def write_grey(side: int) -> Callable[[Path], int]:
    """Writes a black PNG of side x side grey pixels, one byte each when decoded."""

    def write(path: Path) -> int:
        squeeze = zlib.compressobj(1)
        body = b"".join(squeeze.compress(bytes(1 + side)) for _ in range(side)) + squeeze.flush()
        return path.write_bytes(chunks(side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0]), body))

    return write

"""A local HTTP server of files with ranged reads, which can be told to fail in the ways that real ones do."""

from __future__ import annotations

import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

Fault = Literal["503", "403", "404", "drop", "stall", "whole", "flip"]
"""What one GET gets instead: a status, half of the body, nothing for a second, the whole file, or a flipped byte."""

_STALL_SECONDS = 1.0


class RangeServer:
    """Serves the files of a folder at `url` until it is closed; use it in a `with`.

    Attributes:
        faults: What the next GETs get, the first first; when it is used up, all is well.
        always: What every GET gets, or None.
        ranges: (file name, first byte, byte after the last) of each GET that was asked, in order.
    """

    def __init__(self, folder: Path):
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.ranges: list[tuple[str, int, int]] = []
        self._released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or every body waits 40 ms for its head to be acknowledged

            def do_HEAD(self) -> None:
                server._answer(self, folder, body=False)

            def do_GET(self) -> None:
                server._answer(self, folder, body=True)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> RangeServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop; further requests are refused."""
        self._released.set()
        self._http.shutdown()
        self._http.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, folder: Path, *, body: bool) -> None:
        path = folder / request.path.lstrip("/")
        fault = (self.faults.popleft() if self.faults else self.always) if body else None
        if fault in ("503", "403", "404") or not path.is_file():
            self._head(request, int(fault) if fault in ("503", "403", "404") else 404, 0)
            return
        content = path.read_bytes()
        asked = request.headers.get("Range")
        first, after = _span(asked, len(content))
        if body:
            self.ranges.append((path.name, first, after))
        if fault == "stall":
            self._released.wait(_STALL_SECONDS)
        if fault == "whole":
            first, after, asked = 0, len(content), None
        if first >= len(content):
            self._head(request, 416, 0)
            return
        part = bytearray(content[first:after])
        if fault == "flip":
            part[len(part) // 2] ^= 1
        span = f"bytes {first}-{after - 1}/{len(content)}" if asked is not None else None
        self._head(request, 206 if asked is not None else 200, len(part), span)
        if body:
            try:
                request.wfile.write(part[: len(part) // 2] if fault == "drop" else part)
            except ConnectionError:  # the client no longer waits
                request.close_connection = True
        if fault == "drop":
            request.close_connection = True

    def _head(self, request: BaseHTTPRequestHandler, status: int, size: int, span: str | None = None) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(size))
        request.send_header("Accept-Ranges", "bytes")
        if span is not None:
            request.send_header("Content-Range", span)
        request.end_headers()


def _span(asked: str | None, size: int) -> tuple[int, int]:
    """First byte and the byte after the last, of a `Range` header."""
    if asked is None:
        return 0, size
    begin, end = asked.removeprefix("bytes=").split("-")
    return int(begin), min(int(end) + 1, size)

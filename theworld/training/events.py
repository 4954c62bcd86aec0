"""`events.jsonl`: everything out of the ordinary that happens to a run, one JSON object a line, for scripts to read.

    {"time": "2026-11-24T17:20:01.123456+00:00", "event": "preempted", "step": 1200, "rank": 0, "signal": "SIGTERM"}

Every rank appends to the one file of the run by itself, at once and through to the disk, so that a line survives the
end of the process that wrote it. README lists the events.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from torch import distributed

from theworld.data.indexing.table import sync_folder

FILE = "events.jsonl"
UNREADABLE = "unreadable_line"
"""What `read_events` calls a line that is no event, such as one that a full disk cut off."""


def record(folder: str | Path, event: str, **fields: object) -> None:
    """Append one event to `<folder>/events.jsonl` and wait until it is on the disk.

    `step` (None by default), `rank` (this process's by default) and any others stand behind time and name. Numbers that
    are not finite become words (`"nan"`), because JSON has none; paths become strings. Where another process is seen in
    the middle of its line, an empty one comes between; `read_events` skips those.

    Args:
        folder: The run's `trainer.default_root_dir`; made if it is not there.
        event: What happened, in words joined by underscores.
        fields: What JSON can hold, and paths.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {"time": datetime.now(UTC).isoformat(), "event": event, "step": None, "rank": _rank()}
    line = json.dumps(_plain(known | fields), allow_nan=False).encode() + b"\n"
    is_new = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line  # after a line that was cut off, so that this one is whole
        written = os.write(file, line)  # one call: lines of several ranks do not mix on a local disk
        if written != len(line):
            raise OSError(f"{path}: wrote {written} bytes of an event, expected {len(line)}; is the disk full?")
        os.fsync(file)
    finally:
        os.close(file)
    if is_new:
        sync_folder(path.parent)


def read_events(folder: str | Path, *names: str) -> list[dict[str, object]]:
    """Every event of a run in the order written, or those of these names; none if nothing happened.

    A line that is no event comes as `{"event": "unreadable_line", "line": <number from 1>}`.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    events = [_read(line, number) for number, line in enumerate(lines, start=1) if line]
    return [event for event in events if not names or event["event"] in names]


def _read(line: bytes, number: int) -> dict[str, object]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) and "event" in event else {"event": UNREADABLE, "line": number}


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _rank() -> int:
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0

"""How fast a large file is indexed, in how much memory, and whether an interrupted run makes the same index.

    python experiments/speed/data/index_speed.py --source /tmp/osd --workers 2 --kill_after 20

Three measurements: the JSON part alone in MB a second of one core (find rows and hash the file; parse and check rows);
the whole index in wall time, with the resident memory of parent and workers; and the same with a SIGKILL in between.
Memory is PSS, which counts a shared page once over all processes, and RSS, which counts it in each.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from theworld.data.indexing.file import index_file
from theworld.data.indexing.index import Index
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.json_rows import row_spans
from theworld.data.rows.osd import OSDFormat

PARSED_BYTES = 500e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path("/tmp/osd"), help="folder that make_osd.py wrote")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--region_style", choices=("box", "mask"), default="box")
    parser.add_argument("--kill_after", type=float, help="seconds after which a second run is killed, then resumed")
    parser.add_argument("--only", type=Path, help="make this index and nothing else (what the killed run does)")
    arguments = parser.parse_args()
    rows = next(arguments.source.glob("rows.json*"))
    if arguments.only:
        make(arguments, rows, arguments.only)
        return
    json_part(rows)
    whole = arguments.source / "whole.parquet"
    measured(arguments, rows, whole)
    if arguments.kill_after:
        killed(arguments, rows, whole)


def make(arguments: argparse.Namespace, rows: Path, output: Path) -> Index:
    processor = TheWorldProcessor.from_pretrained("theworld-tiny", num_world_tokens=64, world_image_size=64)
    return index_file(
        rows,
        image_folder=arguments.source / "images",
        output=output,
        processor=processor,
        max_seq_length=6144,
        region_style=arguments.region_style,
        num_workers=arguments.workers,
        progress=sys.stdout.isatty(),
    )


def json_part(rows: Path) -> None:
    size, digest = rows.stat().st_size, hashlib.sha256()
    start = time.process_time()
    spans = list(row_spans(rows, chunk_bytes=4 << 20, on_bytes=digest.update))
    find = size / (time.process_time() - start) / 1e6
    row_format, parsed = OSDFormat(), 0
    start = time.process_time()
    with rows.open("rb") as file:
        for number, span in enumerate(spans):
            raw = os.pread(file.fileno(), span.size, span.offset)
            with contextlib.suppress(ValueError):
                row_format.parse(raw, number=number, where="row")
            parsed += span.size
            if parsed > PARSED_BYTES:
                break
    parse = parsed / (time.process_time() - start) / 1e6
    both = 1 / (1 / find + 1 / parse)
    print(f"JSON part of {size / 1e9:.2f} GB, {len(spans)} rows, in MB a second of one core:")
    print(f"  find rows and hash {find:.0f}, read, parse and check {parse:.0f}, both {both:.0f}")


def measured(arguments: argparse.Namespace, rows: Path, output: Path) -> None:
    peaks: dict[str, float] = {}
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(peaks, done))
    watch.start()
    start = time.perf_counter()
    index = make(arguments, rows, output)
    wall = time.perf_counter() - start
    done.set()
    watch.join()
    used = sum(os.times()[:4])
    print(index.summary())
    print(f"whole index, {arguments.workers} workers: {rows.stat().st_size / wall / 1e6:.1f} MB/s, {wall:.0f} s")
    print(f"  CPU time of all processes, JSON part included: {used:.0f} s")
    print("  peak MiB: " + ", ".join(f"{name} {value:.0f}" for name, value in peaks.items()))
    for row, verdict in enumerate(index.verdicts):
        if verdict != "ok":
            print(f"  row {row}: {verdict[:140]}")


def _watch(peaks: dict[str, float], done: threading.Event) -> None:
    """MiB of this process, of its largest child, and of all together."""
    while not done.wait(0.2):
        parent, *workers = [_memory(pid) for pid in (os.getpid(), *_children())]
        seen = {
            "parent RSS": parent[0],
            "largest worker RSS": max((rss for rss, _ in workers), default=0),
            "all PSS": parent[1] + sum(pss for _, pss in workers),
        }
        for name, value in seen.items():
            peaks[name] = max(peaks.get(name, 0), value)


def _children() -> list[int]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def _memory(pid: int) -> tuple[float, float]:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0.0, 0.0
    rss, pss = (int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1]) / 1024 for name in ("Rss", "Pss"))
    return rss, pss


def killed(arguments: argparse.Namespace, rows: Path, whole: Path) -> None:
    output = arguments.source / "resumed.parquet"
    command = [sys.executable, __file__, "--source", str(arguments.source), "--workers", str(arguments.workers)]
    command += ["--region_style", arguments.region_style, "--only", str(output)]
    process = subprocess.Popen(command)
    time.sleep(arguments.kill_after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    parts = len(list(Path(f"{output}.parts").glob("part-*")))
    time.sleep(2)  # its workers notice
    start = time.perf_counter()
    make(arguments, rows, output)
    same = output.read_bytes() == whole.read_bytes()
    print(
        f"killed after {arguments.kill_after:.0f} s with {parts} parts finished; resumed in "
        f"{time.perf_counter() - start:.0f} s; the index is {'byte-identical' if same else 'DIFFERENT'}"
    )


if __name__ == "__main__":
    main()

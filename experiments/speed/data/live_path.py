"""Samples a second and core from JSON and JPEG to packed rows, and where the time goes.

    python experiments/speed/data/live_path.py --source /tmp/osd

Time is the process's own CPU time, so that other programs on the machine matter little; torch, the tokenizer and Pillow
run on one thread. With --workers the rows also go through a loader's worker processes, in wall time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from make_osd import write
from PIL import Image
from transformers import Gemma3ImageProcessorPil

from theworld.data.indexing.file import index_file
from theworld.data.indexing.index import Index
from theworld.data.packing.collator import pack
from theworld.data.packing.loader import FixedLoader
from theworld.data.packing.memory import keep_freed_memory
from theworld.data.packing.packed_rows import PackedRows
from theworld.data.packing.plan import plan
from theworld.data.pictures.images import load_image
from theworld.data.pictures.regions import draw_regions, global_regions
from theworld.data.processor import TheWorldProcessor
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore

VISION_SIDE, WORLD_SIDE = 896, 512
IMAGE_TOKENS, WORLD_TOKENS = 256, 4096
BUDGET, MAX_SEQ_LENGTH = 10240, 6144


def make_processor() -> TheWorldProcessor:
    tiny = TheWorldProcessor.from_pretrained("theworld-tiny", num_world_tokens=1, world_image_size=8)
    size = {"height": VISION_SIDE, "width": VISION_SIDE}
    images = Gemma3ImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_pan_and_scan=False)
    return TheWorldProcessor(
        tiny.tokenizer,
        images,
        num_image_tokens=IMAGE_TOKENS,
        num_world_tokens=WORLD_TOKENS,
        world_image_size=WORLD_SIDE,
    )


def make_samples(source: Path, processor: TheWorldProcessor) -> OSDSamples:
    output = source / "index.parquet"
    where = {"rows_path": source / "rows.json", "image_folder": source / "images"}
    if not output.exists():
        index_file(**where, output=output, processor=processor, max_seq_length=MAX_SEQ_LENGTH)
    index = Index.read(output)
    return OSDSamples(FolderStore(index, **where), index=index, processor=processor)


def make_rows(samples: OSDSamples) -> PackedRows:
    return PackedRows(samples, plan(samples.lengths, seed=0, epoch=0, budget=BUDGET, micro_batches_per_step=1))


def rate(rows: PackedRows, seconds: float) -> tuple[float, float]:
    """Samples a second of CPU time, and of wall time."""
    for number in range(3):
        rows[number]
    count, number = 0, 0
    cpu, wall = time.process_time(), time.perf_counter()
    while time.process_time() - cpu < seconds:
        count += len(rows[number % len(rows)].ids)
        number += 1
    return count / (time.process_time() - cpu), count / (time.perf_counter() - wall)


def stages(samples: OSDSamples, number: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """The steps of a sample, each as a call; together they do what `samples[number]` and `pack` do."""
    row, processor = int(samples.index.eligible[number]), samples.processor
    raw = samples.store.row_bytes(row)
    yield "read the row", lambda: samples.store.row_bytes(row)
    parsed = samples.row_format.parse(raw, number=row, where="")
    yield "parse and check it", lambda: samples.row_format.parse(raw, number=row, where="")
    data = samples.store.image_bytes(row)
    yield "read and hash the image", lambda: samples.store.image_bytes(row)
    image = load_image(data, "")
    yield "decode the JPEG", lambda: load_image(data, "")
    named, regions = global_regions(parsed.turns, parsed.boxes, parsed.rles)
    yield "name regions", lambda: global_regions(parsed.turns, parsed.boxes, parsed.rles)
    drawn = draw_regions(image, regions)
    yield f"draw {len(regions)} regions", lambda: draw_regions(image, regions)
    side = (VISION_SIDE, VISION_SIDE)
    resize = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
    yield "resize to 896 (Pillow)", lambda: drawn.resize(side, resize[0])
    yield "  and its values (896)", lambda: processor.pixels(drawn)
    yield "resize to 512 (Pillow)", lambda: drawn.resize((WORLD_SIDE, WORLD_SIDE), resize[1])
    yield "  and its values (512)", lambda: processor.world_pixels(drawn)
    yield "tokenise", lambda: processor.count_tokens(named)
    sample = samples[number]
    yield "all of the sample", lambda: samples[number]
    two = [sample, sample]
    yield "pack (two samples)", lambda: pack(two, budget=BUDGET, pad_token_id=0, step_target_tokens=1)


def profile(samples: OSDSamples, repeats: int, count: int = 8) -> None:
    """Milliseconds of CPU time of each stage: the least of some repeats, averaged over some samples."""
    found: dict[tuple[int, str], list[float]] = {}
    for number in range(count):
        for place, (name, call) in enumerate(stages(samples, number)):
            call()
            times = []
            for _ in range(repeats):
                start = time.process_time_ns()
                call()
                times.append((time.process_time_ns() - start) / 1e6)
            name = "draw the regions" if name.startswith("draw") else name
            found.setdefault((place, name), []).append(min(times))
    for (_, name), times in found.items():
        print(f"  {name:26s} {np.mean(times):7.2f} ms")


def loader_rate(rows: PackedRows, workers: int, seconds: float) -> float:
    """Samples a second of wall time that arrive from worker processes."""
    loader = FixedLoader(rows, num_workers=workers)
    count, start = 0, None
    for batch in loader:
        if start is None:  # the workers have started
            start = time.perf_counter()
            continue
        count += len(batch.ids)
        if time.perf_counter() - start > seconds:
            break
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="folder that make_osd.py wrote; by default a small one is made")
    parser.add_argument("--seconds", type=float, default=5, help="CPU seconds of each measurement")
    parser.add_argument("--repeats", type=int, default=15, help="of each stage")
    parser.add_argument("--workers", type=int, default=0, help="also measure through so many worker processes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a worker process of a loader does
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.source
        if source is None:
            source = Path(scratch)
            write(source, size=10_000_000, photos=32, width=640, height=480, seed=0, broken=False, lines=False)
        samples = make_samples(source, make_processor())
        mean = samples.lengths.mean()
        print(f"{len(samples)} samples of {mean:.0f} tokens; one thread; torch {torch.__version__}")
        rows = make_rows(samples)
        print("live path: {:.1f} samples a CPU second ({:.1f} of wall time)".format(*rate(rows, arguments.seconds)))
        profile(samples, arguments.repeats)
        if arguments.workers:
            found = loader_rate(rows, arguments.workers, arguments.seconds)
            print(f"live path, {arguments.workers} workers: {found:.1f} samples a second of wall time")


if __name__ == "__main__":
    main()

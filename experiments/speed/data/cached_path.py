"""Samples a second and core from a feature cache of true dimensions, and where the time goes.

    python experiments/speed/data/cached_path.py --source /tmp/osd

The cache is made here, of random numbers, and lies in the system's page cache while it is read. SigLIP's features are
float32, as under autocast on a GPU (its last norm gives float32); --bfloat16 halves them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from live_path import IMAGE_TOKENS, WORLD_SIDE, loader_rate, make_processor, make_rows, make_samples, rate
from make_osd import write
from torch import Tensor

from theworld.data.features.drawings import drawing_key, find_drawings
from theworld.data.features.manifest import Manifest
from theworld.data.features.shard import checksum
from theworld.data.features.steps import CachedSteps
from theworld.data.features.store import DRAWINGS, open_features
from theworld.data.features.writer import write_features
from theworld.data.packing.collator import pack
from theworld.data.packing.memory import keep_freed_memory
from theworld.data.samples import OSDSamples
from theworld.data.shown import describe_row

SHAPES = {"image_features": (IMAGE_TOKENS, 1152), "world_latents": (16, 1, WORLD_SIDE // 8, WORLD_SIDE // 8)}
ALWAYS = CachedSteps(dict.fromkeys(SHAPES, 10**9))


def make_cache(samples: OSDSamples, folder: Path, dtypes: dict[str, torch.dtype]) -> OSDSamples:
    """The same samples with a cache of random entries."""
    drawings = find_drawings(samples.store, samples.index, row_format=samples.row_format)
    folder.mkdir(parents=True, exist_ok=True)
    drawings.write(folder / DRAWINGS)
    for feature, shape in SHAPES.items():
        dtype = dtypes[feature]
        entry_bytes = int(np.prod(shape)) * dtype.itemsize
        manifest = Manifest(
            feature=feature,
            encoder={"weights_sha256": "", "weights_dtype": "", "precision": "", "device": ""},
            preprocessing_sha256="",
            index_sha256=samples.index.sha256,
            dtype=str(dtype).removeprefix("torch."),
            shape=shape,
            entries=len(drawings),
            entries_per_shard=(1 << 27) // entry_bytes,  # several shards, as at full size
            batch_size=8,
            made_with="random numbers",
        )

        def encode(
            batches: list[list[int]], shape: tuple[int, ...] = shape, dtype: torch.dtype = dtype
        ) -> Iterator[Tensor]:
            for batch in batches:
                yield torch.randn(len(batch), *shape).to(dtype)

        write_features(folder / feature, manifest, drawings, encode, restart=True)
    print(f"{len(drawings)} entries of {', '.join(f'{s} {dtypes[f]}' for f, s in SHAPES.items())}")
    return OSDSamples(
        samples.store,
        index=samples.index,
        processor=samples.processor,
        features=open_features(folder, enable_world=True),
    )


def stages(samples: OSDSamples, number: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """The steps of a sample, each as a call."""
    row, index = int(samples.index.eligible[number]), samples.index
    image_sha256 = index.text("image_sha256", row)
    yield "read, parse, name regions", lambda: describe_row(samples.store, index, row, row_format=samples.row_format)
    described = describe_row(samples.store, index, row, row_format=samples.row_format)
    yield "key of the drawing", lambda: drawing_key(image_sha256, described.regions, samples.region_style)
    key = drawing_key(image_sha256, described.regions, samples.region_style)
    for feature, store in samples.features.items():
        yield f"read {feature}", lambda store=store: store.read(row, key)
        entry = store.read(row, key)
        yield "  of which its checksum", lambda entry=entry: checksum(key, entry)
    yield "tokenise", lambda: samples.processor.encode(described.turns, None, "", max_seq_length=index.max_seq_length)
    sample = samples.read(number, cached=SHAPES)
    yield "all of the sample", lambda: samples.read(number, cached=SHAPES)
    two = [sample, sample]
    yield "pack (two samples)", lambda: pack(two, budget=10240, pad_token_id=0, step_target_tokens=1)


def profile(samples: OSDSamples, repeats: int, count: int = 8) -> None:
    """Milliseconds of CPU time of each stage: the least of some repeats, averaged over some samples."""
    found: dict[tuple[int, str], list[float]] = {}
    for number in range(count):
        for place, (name, call) in enumerate(stages(samples, number)):
            times = []
            for _ in range(repeats):
                start = time.process_time_ns()
                call()
                times.append((time.process_time_ns() - start) / 1e6)
            found.setdefault((place, name), []).append(min(times))
    for (_, name), times in found.items():
        print(f"  {name:26s} {np.mean(times):7.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="folder that make_osd.py wrote; by default a small one is made")
    parser.add_argument("--seconds", type=float, default=5, help="CPU seconds of each measurement")
    parser.add_argument("--repeats", type=int, default=15, help="of each stage")
    parser.add_argument("--workers", type=int, default=0, help="also measure through so many worker processes")
    parser.add_argument("--bfloat16", action="store_true", help="SigLIP's features in two bytes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a worker process of a loader does
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.source
        if source is None:
            source = Path(scratch)
            write(source, size=7_000_000, photos=32, width=640, height=480, seed=0, broken=False, lines=False)
        vision = torch.bfloat16 if arguments.bfloat16 else torch.float32
        dtypes = {"image_features": vision, "world_latents": torch.float32}
        samples = make_cache(make_samples(source, make_processor()), Path(scratch) / "features", dtypes)
        print(f"{len(samples)} samples; one thread; torch {torch.__version__}")
        rows = make_rows(samples)
        rows.cached = ALWAYS
        print(
            "from the cache: {:.0f} samples a CPU second ({:.0f} of wall time)".format(*rate(rows, arguments.seconds))
        )
        profile(samples, arguments.repeats)
        if arguments.workers:
            found = loader_rate(rows, arguments.workers, arguments.seconds)
            print(f"{arguments.workers} workers: {found:.0f} samples a second of wall time")


if __name__ == "__main__":
    main()

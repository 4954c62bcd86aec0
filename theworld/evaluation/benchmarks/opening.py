"""A benchmark by its name and where its files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from theworld.evaluation.benchmarks import blink, cvbench, spatialrgpt
from theworld.evaluation.benchmarks.benchmark import Benchmark
from theworld.evaluation.benchmarks.osd import osd
from theworld.evaluation.benchmarks.places import locate
from theworld.evaluation.benchmarks.vsr import vsr

BenchmarkName = Literal["srgpt", "vsr", "blink", "cvbench", "osd"]
"""SpatialRGPT-Bench, Visual Spatial Reasoning, BLINK, CV-Bench, and any split in the Open Spatial Dataset's schema."""


def open_benchmark(
    name: BenchmarkName,
    path: str,
    *,
    images: str | None = None,
    revision: str | None = None,
    subtasks: Sequence[str] | None = None,
    join_images: bool = False,
    skip_malformed: bool = False,
) -> Benchmark:
    """The questions of a benchmark, all of them checked as far as their text goes.

    Args:
        name: Which benchmark.
        path: File, folder, or data set on the Hub.
        images: Folder of the images, where the rows are JSON.
        revision: Commit of a data set on the Hub.
        subtasks: Of BLINK; by default the spatial ones that show one image.
        join_images: For BLINK: show several images side by side as one.
        skip_malformed: Leave faulty rows out instead of raising the first one's error.

    Raises:
        ValueError: The files are not there, hold something else, or a setting has no meaning for this benchmark.
    """
    if name != "blink" and (subtasks is not None or join_images):
        raise ValueError(f"found subtasks or join_images for {name}, expected them for blink only; leave them out.")
    if name == "blink":
        chosen = tuple(subtasks) if subtasks is not None else blink.SPATIAL
        if not chosen:
            raise ValueError(f"found no subtasks, expected some, such as {', '.join(blink.SPATIAL)}; name them.")
        paths = locate(path, blink.patterns(chosen), revision=revision)
        return blink.blink(paths, subtasks=chosen, join_images=join_images, skip_malformed=skip_malformed)
    if name == "cvbench":
        return cvbench.cvbench(locate(path, cvbench.PATTERNS, revision=revision), skip_malformed=skip_malformed)
    if name == "srgpt" and Path(path).suffix.lower() not in (".json", ".jsonl"):
        paths = locate(path, spatialrgpt.PATTERNS, revision=revision)
        return spatialrgpt.from_parquet(paths, skip_malformed=skip_malformed)
    if images is None:
        raise ValueError(f"found no images for {name}, expected the folder of the images that {path} names.")
    found = locate(path, ("test.jsonl",) if name == "vsr" else ("*.json", "*.jsonl"), revision=revision)
    if len(found) > 1:
        raise ValueError(f"{path}: found {[file.name for file in found]}, expected one file of rows; name it.")
    load = {"srgpt": spatialrgpt.from_json, "vsr": vsr, "osd": osd}[name]
    return load(found[0], Path(images).expanduser(), skip_malformed=skip_malformed)

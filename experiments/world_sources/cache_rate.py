"""How fast `theworld data cache` writes latents: entries a second, between a cache of few images and one of more.

    python -m experiments.world_sources.cache_rate --folder /local/disk --scenes /local/disk/scenes --output rate.json
    python -m experiments.world_sources.cache_rate --folder /tmp/rate --output rate.json --tiny     # the CPU

A base (`experiments/scaling/random_base.py`) and a denoiser (`cosmos.py`) of random weights at true dimensions, scenes
of ours in OSD's schema. Loading takes as long for both numbers of images, so their difference is the rate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from theworld.cli import main as theworld
from theworld.data.synthetic.scenes import SyntheticScenes

FEW, MORE = {"frame": 4, "rollout k=1": 2}, {"frame": 200, "rollout k=1": 10}
"""Images of the two caches, by source."""


def scenes(folder: Path, count: int) -> tuple[Path, Path]:
    """Rows and images of that many scenes; drawn here, or before in the same folder."""
    source = SyntheticScenes(cache_dir=str(folder), num_train=count, num_val=1, num_test=1, turns_per_row=2)
    found = source.generate()
    return Path(found.train_path), Path(found.train_images)


def cache(arguments: argparse.Namespace, name: str, count: int) -> tuple[float, int]:
    """Seconds of one cache, and its entries."""
    rows, images = scenes(arguments.scenes or arguments.folder / "scenes", count)
    place = arguments.folder / f"{name.replace(' ', '_')}-{count}"
    base = arguments.folder / "base"
    k = 1 if name.startswith("rollout") else 0
    index = place.with_suffix(".parquet")
    size = ["--world_image_size=64"] if arguments.tiny else ["--world_image_size=512"]
    theworld(
        ["data", "index", f"--rows={rows}", f"--images={images}", f"--base={base}", f"--output={index}"]
        + [*size, f"--num_world_steps={k}", "--max_seq_length=16384", "--num_workers=0"]
    )
    extra = ["--device=cpu", "--dtype=float32", "--precision=32-true"] if arguments.tiny else ["--num_workers=8"]
    extra += [f"--cosmos_model={arguments.folder / 'cosmos'}", "--rollout.num_world_steps=1"] if k else []
    started = time.perf_counter()
    theworld(
        ["data", "cache", f"--rows={rows}", f"--images={images}", f"--index={index}", f"--base={base}"]
        + ["--features=[world_latents]", f"--output={place}", "--restart", *extra]
    )
    return time.perf_counter() - started, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, help="where scenes were drawn before, if no renderer is here")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    tiny = ["--tiny"] if arguments.tiny else []
    subprocess.run([sys.executable, "experiments/scaling/random_base.py", arguments.folder / "base", *tiny], check=True)
    made = [sys.executable, "-m", "experiments.world_sources.cosmos", arguments.folder / "cosmos", *tiny]
    subprocess.run(made, check=True)
    results: dict[str, object] = {
        "card": "CPU" if arguments.tiny else torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    for name in FEW:
        cache(arguments, name, FEW[name])  # compiles, and sets the device up
        (first, few), (second, more) = (cache(arguments, name, count[name]) for count in (FEW, MORE))
        results[name] = {
            "seconds": [first, second],
            "entries": [few, more],
            "entries_per_second": (more - few) / (second - first),
        }
        print(name, results[name], flush=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Stage 3 by the command that users type, on one device under FSDP2: memory, step time, saved and resumed.

    python -m experiments.scaling.real_fit --folder /local/disk --output real_fit.json --scenes /local/disk/scenes
    python -m experiments.scaling.real_fit --folder /tmp/real_fit --output real_fit.json --tiny         # two CPU cores

`configs/stage3.yaml` with `configs/cluster/stage3_fsdp2.yaml`, from random weights at true dimensions
(`random_base.py`), on scenes of ours in OSD's schema. The first run makes `STEPS` steps and saves after `SAVED`; the
second goes on from there in a process of its own, and its losses are compared with the first one's. Needs 45 GB of disk
with `adamw_bf16` (the default here), 75 with `adamw`. Arguments that are not known here are given to `fit`.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from theworld.training.checkpoints.directory import MANIFEST

ROOT = Path(__file__).parents[2]
STEPS, SAVED = 9, 5
TRUE = [
    *("--data.token_budget=10240", "--data.max_seq_length=5120", "--data.synthetic.turns_per_row=16"),
    "--trainer.callbacks+=lightning.pytorch.callbacks.DeviceStatsMonitor",
]
TINY = [
    *("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--model.attention_backend=sdpa"),
    *("--model.compile_layers=false", "--model.dtype=float32", "--model.world_image_size=64", "--data.num_workers=0"),
    *("--data.token_budget=704", "--data.max_seq_length=384", "--data.synthetic.turns_per_row=4"),
]


def command(arguments: argparse.Namespace, run: str) -> list[str]:
    """`theworld fit` under torchrun."""
    scenes = arguments.scenes or arguments.folder / "scenes"
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", "-m", "theworld", "fit"),
        *(f"--config={ROOT / 'configs' / name}" for name in ("stage3.yaml", "cluster/stage3_fsdp2.yaml")),
        f"--model.base={arguments.folder / 'base'}",
        f"--model.optimizer={'adamw' if arguments.tiny else arguments.optimizer}",
        f"--model.stages.language.max_steps={STEPS}",
        f"--model.stages.language.recompute={arguments.recompute}",
        *("--trainer.devices=1", "--trainer.accumulate_grad_batches=2", "--data.micro_batches_per_step=2"),
        *(
            "--trainer.logger=lightning.pytorch.loggers.CSVLogger",
            f"--trainer.logger.save_dir={arguments.folder / run}",
        ),
        *("--trainer.log_every_n_steps=1", f"--trainer.default_root_dir={arguments.folder / run}"),
        *("--trainer.limit_val_batches=0", "--stage_validation.enabled=false", "--stage_export.enabled=false"),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
        *(f"--checkpoint.every_n_train_steps={SAVED}", "--checkpoint.save_last=false"),
        *(f"--data.synthetic.cache_dir={scenes}", "--data.synthetic.num_train=48"),
        *("--data.synthetic.num_val=2", "--data.synthetic.num_test=2"),
        *(TINY if arguments.tiny else TRUE),
    ]


def fit(arguments: argparse.Namespace, run: str, *extra: str) -> dict[str, object]:
    """One run: its losses by step, seconds a step as it printed them, and its peak of memory."""
    folder, started = arguments.folder / run, time.perf_counter()
    folder.mkdir(parents=True)
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run([*command(arguments, run), *extra], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    text = (folder / "log.txt").read_text()
    if done.returncode:
        raise SystemExit(f"{run} ended with {done.returncode}:\n{text[-3000:]}")
    (table,) = folder.rglob("metrics.csv")
    rows = list(csv.DictReader(table.open()))
    losses = {int(row["step"]) + 1: float(row["train/loss"]) for row in rows if row.get("train/loss")}
    peaks = [float(v) for row in rows for k, v in row.items() if k.endswith("allocated_bytes.all.peak") and v]
    said = re.search(r"a step \(language\), ([\d.]+) s[^\n]*", text)
    return {
        "losses": losses,
        "seconds_of_a_step": float(said[1]) if said else None,
        "summary": said[0] if said else None,
        "peak_gib": max(peaks, default=0.0) / 2**30,
        "wall_seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, help="where scenes were drawn before, if no renderer is here")
    parser.add_argument("--optimizer", default="adamw_bf16", choices=["adamw", "adamw_bf16"])
    parser.add_argument("--recompute", default="full", choices=["none", "selective", "full"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    arguments, further = parser.parse_known_args()
    base = [sys.executable, ROOT / "experiments/scaling/random_base.py", arguments.folder / "base"]
    subprocess.run([*base, *(["--tiny"] if arguments.tiny else [])], check=True)
    whole = fit(arguments, "whole", *further)
    (checkpoint,) = [path.parent for path in (arguments.folder / "whole").rglob(MANIFEST)]
    resumed = fit(arguments, "resumed", f"--ckpt_path={checkpoint}", *further)
    result = {
        "device": "cpu" if arguments.tiny else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "optimizer": arguments.optimizer,
        "recompute": arguments.recompute,
        "further": further,
        "checkpoint_bytes": sum(file.stat().st_size for file in checkpoint.iterdir()),
        "whole": whole,
        "resumed": resumed,
        "steps_compared": sorted(resumed["losses"]),
        "resumed_difference": max(abs(loss - whole["losses"][step]) for step, loss in resumed["losses"].items()),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

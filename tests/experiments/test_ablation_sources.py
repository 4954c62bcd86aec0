"""The arms of other sources run in a grid beside the frame: caches for training, the source itself for the test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from experiments.ablations.run import main as run_grid
from tests.models.world_sources.conftest import new_scheduler, new_transformer
from theworld.assets import resolve
from theworld.cli import main
from theworld.data.synthetic.scenes import SyntheticPaths, SyntheticScenes

ABLATIONS = Path(__file__).parents[2] / "experiments" / "ablations"
WIDTH = 48
"""Of the small denoiser."""
CACHES = {
    "frames_4": (["--num_world_steps=4"], ["--rollout.num_world_steps=4", "--rollout.num_inference_steps=2"]),
    "hidden_states": ([f"--world_latent_shape=[{WIDTH},16]"], ["--hidden_states.block=1"]),
}


def cosmos(folder: Path) -> Path:
    """The tiny base's VAE beside a random denoiser."""
    shutil.copytree(Path(resolve("theworld-tiny")) / "vae", folder / "vae")
    new_transformer().save_pretrained(folder / "transformer")
    new_scheduler().save_pretrained(folder / "scheduler")
    return folder


def budget(folder: Path, made: SyntheticPaths, parts: Path) -> None:
    """`budget.yaml` with scenes of a folder, which caches are made of, three steps, and room for five frames."""
    values = yaml.safe_load((ABLATIONS / "budget.yaml").read_text())
    del values["data"]["synthetic"]
    values["data"] |= {"max_seq_length": 640, "token_budget": 640}
    for split in ("train", "test"):
        for what in ("path", "images"):
            values["data"][f"{split}_{what}"] = str(getattr(made, f"{split}_{what}"))
    values["model"] |= {"cosmos_model": str(parts), "max_new_tokens": 4}
    for stage, steps in (("vision", 1), ("language", 2)):
        values["model"]["stages"][stage] |= {"max_steps": steps, "warmup_steps": 0}
    (folder / "budget.yaml").write_text(yaml.safe_dump(values))


def arm(folder: Path, name: str) -> str:
    """The shipped file, with this folder's cache, and this denoiser's width."""
    text = (ABLATIONS / "arms" / f"{name}.yaml").read_text()
    text = text.replace("outputs/features", str(folder)).replace("[2048, 16]", f"[{WIDTH}, 16]")
    assert str(folder / name) in text
    (folder / f"{name}.yaml").write_text(text)
    return f"{name}.yaml"


@pytest.mark.slow
def test_other_sources_run_beside_the_frame(tmp_path):
    parts = cosmos(tmp_path / "cosmos")
    made = SyntheticScenes(
        cache_dir=str(tmp_path / "scenes"), num_train=8, num_val=1, num_test=2, turns_per_row=2
    ).generate(progress=False)
    rows = [f"--rows={made.train_path}", f"--images={made.train_images}", "--base=theworld-tiny"]
    for name, (settings, source) in CACHES.items():
        index = f"{tmp_path / name}.parquet"
        sizes = ["--world_image_size=64", "--max_seq_length=640", "--num_workers=0"]
        main(["data", "index", *rows, f"--output={index}", *sizes, *settings])
        numbers = ["--device=cpu", "--dtype=float32", "--precision=32-true", "--features=[world_latents]"]
        place = [f"--output={tmp_path / name}", f"--index={index}", f"--cosmos_model={parts}"]
        main(["data", "cache", *rows, *place, *numbers, *source])
    budget(tmp_path, made, parts)
    grid = {"budget": ["budget.yaml"], "reference": "world", "seeds": [0], "side_by_side": 1}
    arms = {"world": None} | {name: arm(tmp_path, name) for name in CACHES}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid | {"arms": arms}))
    run_grid(["--grid", str(tmp_path / "grid.yaml"), "--output", str(tmp_path / "out")])
    for name in arms:
        run = tmp_path / "out" / "runs" / f"{name}-seed0"
        assert (run / "result.json").exists(), (run / "log.txt").read_text()[-2000:]
    exported = {name: tmp_path / "out" / "runs" / f"{name}-seed0" / "export" / "language" for name in CACHES}
    kinds = {name: json.loads((place / "config.json").read_text())["world_source"] for name, place in exported.items()}
    assert {name: facts["kind"] for name, facts in kinds.items()} == {
        "frames_4": "rollout",
        "hidden_states": "hidden_states",
    }

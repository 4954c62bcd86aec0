"""From the command line: index, shard, and train over the shards by HTTP, to the weights that the folder gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.range_server import RangeServer
from theworld.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"
STAGES = ("projection", "vision", "language")


@pytest.fixture
def fit(base, osd, tmp_path, monkeypatch):
    """`theworld fit` with `configs/tiny.yaml`, a step in each of three stages; the exported weights."""
    monkeypatch.setattr("sys.argv", ["theworld"])  # Lightning warns of pytest's own arguments

    def run(name: str, **data: object) -> dict[str, Tensor]:
        data = {f"{split}_{kind}": osd[f"{split}_{kind}"] for split in ("val",) for kind in ("path", "images")} | data
        main(
            [
                "fit",
                f"--config={CONFIG}",
                f"--trainer.default_root_dir={tmp_path / name}",
                "--trainer.enable_progress_bar=false",
                "--trainer.enable_model_summary=false",
                f"--model.base={base}",
                "--data.synthetic=null",
                *(f"--data.{key}={value}" for key, value in data.items()),
                *(f"--model.stages.{stage}.max_steps=1" for stage in STAGES),
                "--test_after_fit=false",
                "--fixed_prompts.every_n_steps=0",
            ]
        )
        exports = {stage: tmp_path / name / "export" / stage for stage in STAGES}
        return {
            f"{stage} {path.relative_to(folder)} {key}": value
            for stage, folder in exports.items()
            for path in sorted(folder.rglob("*.safetensors"))
            for key, value in load_file(path).items()
        }

    return run


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    assert len(one) > 3 * 20
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_three_steps_over_http_give_the_weights_of_the_folder(base, osd, fit, tmp_path):
    rows, images = osd["train_path"], osd["train_images"]
    index, shards = tmp_path / "train.parquet", tmp_path / "shards"
    source = [f"--rows={rows}", f"--images={images}"]
    settings = ["--max_seq_length=384", "--world_image_size=64", "--num_workers=0"]
    main(["data", "index", *source, f"--base={base}", f"--output={index}", *settings])
    main(["data", "shard", *source, f"--index={index}", f"--output={shards}", "--shard_bytes=65536"])

    folder = fit("folder", train_path=rows, train_images=images)
    with RangeServer(shards) as server:
        over_http = fit(
            "http",
            train_shards=server.url,
            train_index=shards / "index.parquet",
            cache_dir=tmp_path / "cache",
            num_workers=2,
        )
        assert server.ranges
    assert _equal(over_http, folder)
    assert not _equal(fit("another order", train_path=rows, train_images=images, seed=1), folder)  # the control

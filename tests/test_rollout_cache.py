"""`theworld data cache --rollout…`: entries are the rollout's, under the drawing's own key."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.world_sources.conftest import new_scheduler, new_transformer, new_vae
from tests.tiny import osd_row, write_osd
from theworld.cli import main
from theworld.data.features.drawings import Drawings
from theworld.data.features.store import FeatureStore
from theworld.data.indexing.index import Index
from theworld.data.processor import TheWorldProcessor
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.denoiser import Denoiser
from theworld.models.world_sources.rollout import Rollout, RolloutSettings

SIDE, STEPS = 32, 2
TOKENS = (1 + STEPS) * (SIDE // 8) ** 2
ROLLOUT = [f"--rollout.num_world_steps={STEPS}", "--rollout.num_inference_steps=3", "--rollout.seed=5"]


@pytest.fixture(scope="module")
def cosmos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cosmos")
    for name, part in (("vae", new_vae()), ("transformer", new_transformer()), ("scheduler", new_scheduler())):
        part.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def of(tmp_path_factory) -> list[str]:
    """Three rows, indexed with two world steps."""
    folder = tmp_path_factory.mktemp("rows")
    path, images = write_osd(folder, [osd_row(number, turns=1) for number in range(3)])
    index = folder / "osd.parquet"
    main(
        ["data", "index", f"--rows={path}", f"--images={images}", "--base=theworld-tiny", f"--output={index}"]
        + [f"--world_image_size={SIDE}", f"--num_world_steps={STEPS}", "--max_seq_length=400", "--num_workers=0"]
    )
    return [f"--rows={path}", f"--images={images}", f"--index={index}"]


def cache(of: list[str], output: Path, *arguments: str) -> None:
    main(
        ["data", "cache", *of, "--base=theworld-tiny", "--features=[world_latents]", f"--output={output}"]
        + ["--device=cpu", "--dtype=float32", "--precision=32-true", *arguments]
    )


def test_entries_are_the_rollout_of_the_drawing(of, cosmos, tmp_path):
    cache(of, tmp_path, f"--cosmos_model={cosmos}", *ROLLOUT)
    rows, images, path = (argument.split("=")[1] for argument in of)
    index = Index.read(Path(path))
    processor = TheWorldProcessor.from_pretrained("theworld-tiny", num_world_tokens=TOKENS, world_image_size=SIDE)
    store = FeatureStore(tmp_path, "world_latents")
    assert store.manifest.shape == (16, 1 + STEPS, SIDE // 8, SIDE // 8)
    samples = OSDSamples(
        FolderStore(index, rows_path=Path(rows), image_folder=Path(images)),
        index=index,
        processor=processor,
        features={"world_latents": store},
    )
    settings = RolloutSettings(num_world_steps=STEPS, num_inference_steps=3, seed=5)
    source = Rollout(WorldEncoder(new_vae()), Denoiser(new_transformer(), new_scheduler()), settings)
    keys = Drawings.read(tmp_path / "drawings.safetensors").keys
    for number in range(3):
        pixels = samples[number].world_pixel_values
        found = samples.read(number, cached=["world_latents"]).world_latents
        assert torch.equal(found, source.encode(pixels, [keys[number].tobytes().hex()]))
        assert not torch.allclose(found[:, :, 1:], source.encode(pixels, ["other"])[:, :, 1:], rtol=1e-3)
    facts = {name: str(value) for name, value in source.fingerprint().items()}
    store.refuse_other(facts, fix="")
    with pytest.raises(ValueError, match=r"seed \(cache 5, now 6\)"):
        store.refuse_other(facts | {"seed": "6"}, fix="")


def test_a_rollout_goes_on_only_with_its_own_settings(of, cosmos, tmp_path):
    cache(of, tmp_path, f"--cosmos_model={cosmos}", *ROLLOUT)
    cache(of, tmp_path, f"--cosmos_model={cosmos}", *ROLLOUT)
    with pytest.raises(SystemExit, match=r"holds another cache: seed \(cache 5, now 6\)"):
        cache(of, tmp_path, f"--cosmos_model={cosmos}", *ROLLOUT[:2], "--rollout.seed=6")


def test_a_text_without_a_denoiser_is_refused(of, tmp_path):
    with pytest.raises(SystemExit, match="found text=x.safetensors without a rollout"):
        cache(of, tmp_path, "--text=x.safetensors")


def test_a_base_without_a_denoiser_says_what_is_missing(of, tmp_path):
    with pytest.raises(SystemExit, match="found no .*tiny_base/transformer/config.json"):
        cache(of, tmp_path, *ROLLOUT)


def test_bad_settings_end_with_a_message(of, cosmos, tmp_path):
    with pytest.raises(SystemExit, match=r"theworld data cache: (?s:.*)num_world_steps of at least 0"):
        cache(of, tmp_path, f"--cosmos_model={cosmos}", "--rollout.num_world_steps=-1")

"""`theworld data cache --rollout…`: entries are the rollout's, and what trains on them says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.world_sources.conftest import new_scheduler, new_transformer, new_vae
from tests.tiny import osd_row, write_osd
from theworld.cli import main
from theworld.data.features.store import FeatureStore
from theworld.data.indexing.index import Index
from theworld.data.processor import TheWorldProcessor
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore
from theworld.evaluation.loaded_model import load_model
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.denoiser import Denoiser
from theworld.models.world_sources.rollout import Rollout, RolloutSettings
from theworld.models.world_sources.source import content_keys

SIDE, STEPS = 32, 2
WIDTH = 48
"""Of the small denoiser."""
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


def fit(of: list[str], cosmos: Path, folder: Path, *model: str) -> str:
    """Two steps of the projector on `folder / "features"`; the export."""
    rows, images, index = (argument.split("=")[1] for argument in of)
    main(
        ["fit", "--trainer.accelerator=cpu", "--trainer.precision=32-true", f"--trainer.default_root_dir={folder}"]
        + ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--model.dtype=float32", *model]
        + ["--model.base=theworld-tiny", f"--model.cosmos_model={cosmos}", f"--model.world_image_size={SIDE}"]
        + ["--model.stages={s: {learning_rates: {world_projector: 1.0e-2}, max_steps: 2, warmup_steps: 0}}"]
        + [f"--data.train_path={rows}", f"--data.train_images={images}", f"--data.train_index={index}"]
        + [f"--data.train_features={folder / 'features'}", "--data.token_budget=400", "--data.max_seq_length=400"]
        + ["--data.micro_batches_per_step=1", "--data.num_workers=0", "--trainer.log_every_n_steps=1"]
        + ["--checkpoint.every_n_train_steps=2"]
    )
    return str(folder / "export" / "s")


def pixels_and_latents(of: list[str], features: Path, processor: TheWorldProcessor) -> tuple[Tensor, Tensor]:
    """What the world branch sees of the second row, live and cached."""
    rows, images, path = (Path(argument.split("=")[1]) for argument in of)
    index = Index.read(path)
    store = FolderStore(index, rows_path=rows, image_folder=images)
    cached = {"world_latents": FeatureStore(features, "world_latents")}
    samples = OSDSamples(store, index=index, processor=processor, features=cached)
    return samples[1].world_pixel_values, samples.read(1, cached=["world_latents"]).world_latents


def test_entries_are_the_rollout_of_each_picture(of, cosmos, tmp_path):
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
    for number in range(3):
        pixels = samples[number].world_pixel_values
        found = samples.read(number, cached=["world_latents"]).world_latents
        assert torch.equal(found, source.encode(pixels, content_keys(pixels)))
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
    with pytest.raises(SystemExit, match=r"found \[\], text=x.safetensors and world_latents among the features"):
        cache(of, tmp_path, "--text=x.safetensors")


def test_a_base_without_a_denoiser_says_what_is_missing(of, tmp_path):
    with pytest.raises(SystemExit, match="found no .*tiny_base/transformer/config.json"):
        cache(of, tmp_path, *ROLLOUT)


def test_bad_settings_end_with_a_message(of, cosmos, tmp_path):
    with pytest.raises(SystemExit, match=r"theworld data cache: (?s:.*)num_world_steps of at least 0"):
        cache(of, tmp_path, f"--cosmos_model={cosmos}", "--rollout.num_world_steps=-1")


def test_a_run_says_what_its_latents_were_and_its_export_imagines_the_same(of, cosmos, tmp_path):
    """Cached latents train it; its export, given the denoiser, makes them of the picture, bit for bit."""
    cache(of, tmp_path / "features", f"--cosmos_model={cosmos}", *ROLLOUT)
    export = fit(of, cosmos, tmp_path, f"--model.num_world_steps={STEPS}")
    place = {"dtype": torch.float32, "device": torch.device("cpu")}
    loaded = load_model(export, cosmos_model=str(cosmos), **place)
    assert loaded.model.config.world_source["kind"] == "rollout"
    assert loaded.model.config.world_source["seed"] == "5"
    live, latents = pixels_and_latents(of, tmp_path / "features", loaded.processor)
    encoder = loaded.model.cosmos_encoder
    with torch.no_grad():
        assert torch.equal(encoder(live), encoder.project(latents))
    with pytest.raises(ValueError, match="found no .*tiny_base/transformer/config.json|found no .*export"):
        load_model(export, cosmos_model="theworld-tiny", **place)
    # The next stage starts from the export, which has its world encoder: only the denoiser is read elsewhere.
    cache(of, tmp_path / "again", f"--base={export}", f"--cosmos_model={cosmos}", *ROLLOUT)
    assert torch.equal(pixels_and_latents(of, tmp_path / "again", loaded.processor)[1], latents)
    config = Path(export) / "config.json"
    config.write_text(config.read_text().replace('"denoiser_sha256": "', '"denoiser_sha256": "0'))
    with pytest.raises(ValueError, match=r"another world source than the model was trained with: denoiser_sha256"):
        load_model(export, cosmos_model=str(cosmos), **place)
    config.write_text(config.read_text().replace('"kind": "rollout"', '"kind": "true_frames"'))
    with pytest.raises(ValueError, match="whose latents came from 'true_frames', expected one of"):
        load_model(export, cosmos_model=str(cosmos), **place)


def test_a_run_answers_test_questions_as_its_export_does(of, cosmos, tmp_path):
    """While it trains and at its end; no cache is read for them, so the run imagines, with the cache's own source."""
    cache(of, tmp_path / "features", f"--cosmos_model={cosmos}", *ROLLOUT)
    rows, images, _ = (argument.split("=")[1] for argument in of)
    tested = [f"--data.test_path={rows}", f"--data.test_images={images}", "--test_after_fit=true"]
    tested += ["--fixed_prompts.every_n_steps=1", "--fixed_prompts.num_prompts=2", "--model.max_new_tokens=6"]
    export = fit(of, cosmos, tmp_path, f"--model.num_world_steps={STEPS}", *tested)
    assert len(list((tmp_path / "fixed_prompts").glob("step=*.jsonl"))) == 3
    words = ["evaluate", f"--model={export}", "--benchmark=osd", f"--path={rows}", f"--images={images}"]
    main([*words, f"--output={tmp_path / 'answers'}", f"--cosmos_model={cosmos}", "--max_new_tokens=6", "--device=cpu"])
    ours, theirs = (
        {row["id"]: row["prediction"] for row in map(json.loads, (folder / "predictions.jsonl").open())}
        for folder in (tmp_path, tmp_path / "answers")
    )
    assert ours == theirs
    assert len(ours) == 3


def test_a_run_without_a_named_source_says_so_at_the_test(of, cosmos, tmp_path):
    cache(of, tmp_path / "features", f"--cosmos_model={cosmos}", *ROLLOUT)
    fit(of, cosmos, tmp_path, f"--model.num_world_steps={STEPS}")
    rows, images, _ = (argument.split("=")[1] for argument in of)
    words = ["test", "--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.logger=false"]
    words += [f"--trainer.default_root_dir={tmp_path / 'test'}", "--model.dtype=float32", "--model.base=theworld-tiny"]
    words += [f"--model.cosmos_model={cosmos}", f"--model.world_image_size={SIDE}", f"--model.num_world_steps={STEPS}"]
    words += [f"--data.test_path={rows}", f"--data.test_images={images}", "--data.max_seq_length=400"]
    with pytest.raises(ValueError, match="whose latents came from 'a source it does not name'"):
        main([*words, "--data.token_budget=400"])


def test_hidden_states_train_and_are_imagined_again(cosmos, tmp_path):
    """As wide as the denoiser, a cell for 16 × 16 pixels: the model is told both."""
    path, images = write_osd(tmp_path, [osd_row(number, turns=1) for number in range(2)])
    shape, index = f"--world_latent_shape=[{WIDTH},16]", tmp_path / "osd.parquet"
    main(
        ["data", "index", f"--rows={path}", f"--images={images}", "--base=theworld-tiny", f"--output={index}", shape]
        + [f"--world_image_size={SIDE}", "--max_seq_length=400", "--num_workers=0"]
    )
    of = [f"--rows={path}", f"--images={images}", f"--index={index}"]
    cache(of, tmp_path / "features", f"--cosmos_model={cosmos}", "--hidden_states.block=1")
    export = fit(of, cosmos, tmp_path, f"--model.world_latent_shape=[{WIDTH},16]")
    loaded = load_model(export, cosmos_model=str(cosmos), dtype=torch.float32, device=torch.device("cpu"))
    assert loaded.processor.num_world_tokens == (SIDE // 16) ** 2
    live, latents = pixels_and_latents(of, tmp_path / "features", loaded.processor)
    encoder = loaded.model.cosmos_encoder
    with torch.no_grad():
        assert torch.equal(encoder(live), encoder.project(latents))
    encoder.source = None
    with pytest.raises(ValueError, match=f"latents of {WIDTH} channels, expected one: the world encoder makes 16"):
        encoder(live)


def test_one_source_at_a_time(of, cosmos, tmp_path):
    with pytest.raises(SystemExit, match="expected one of rollout, hidden_states and source"):
        cache(of, tmp_path, f"--cosmos_model={cosmos}", *ROLLOUT, "--hidden_states.block=1")


def test_the_audit_imagines_too(of, cosmos, tmp_path):
    """An export of several frames is audited with its own source, and asked what the future frames are worth."""
    cache(of, tmp_path / "features", f"--cosmos_model={cosmos}", *ROLLOUT)
    export = fit(of, cosmos, tmp_path, f"--model.num_world_steps={STEPS}")
    rows, images, _ = (argument.split("=")[1] for argument in of)
    words = ["audit", export, f"--rows={rows}", f"--images={images}", f"--output={tmp_path / 'audit'}", "--device=cpu"]
    main([*words, f"--cosmos_model={cosmos}", "--max_seq_length=400", "--probes=1"])
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert "future_is_present" in found["arms"]

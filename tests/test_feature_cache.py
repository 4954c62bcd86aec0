"""`theworld data cache`: entries are what the model computes live, bit for bit, wherever rows and images lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import osd_row, write_osd
from theworld.cli import main
from theworld.data.features.drawings import Drawings
from theworld.data.features.store import open_features
from theworld.data.indexing.index import Index
from theworld.data.processor import TheWorldProcessor
from theworld.data.samples import OSDSamples
from theworld.data.splits import SourceConfig, SourceOpener
from theworld.data.stores import FolderStore
from theworld.models.theworld import TheWorld
from theworld.models.towers import encoder_facts

INDEX = ["--base=theworld-tiny", "--world_image_size=64", "--max_seq_length=400", "--num_workers=0"]
CACHE = ["--base=theworld-tiny", "--device=cpu", "--dtype=float32", "--precision=32-true"]
BOTH = ["image_features", "world_latents"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Rows, images, index; the last row looks like the second."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [osd_row(i, turns=1 + i % 3) for i in range(5)] + [osd_row(1, turns=2, id="again", answer="No.")]
    path, images = write_osd(folder, rows)
    main(["data", "index", f"--rows={path}", f"--images={images}", *INDEX, f"--output={folder / 'osd.parquet'}"])
    return path, images, folder / "osd.parquet"


def of(source) -> list[str]:
    rows, images, index = source
    return [f"--rows={rows}", f"--images={images}", f"--index={index}"]


@pytest.fixture(scope="module")
def cached(source, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("cached") / "features"
    main(["data", "cache", *of(source), *CACHE, f"--output={output}", "--shard_bytes=40000"])
    return output


@pytest.fixture(scope="module")
def samples(source, cached) -> OSDSamples:
    rows, images, path = source
    index = Index.read(path)
    processor = TheWorldProcessor.from_pretrained("theworld-tiny", num_world_tokens=64, world_image_size=64)
    store = FolderStore(index, rows_path=rows, image_folder=images)
    return OSDSamples(store, index=index, processor=processor, features=open_features(cached, enable_world=True))


@pytest.fixture(scope="module")
def model() -> TheWorld:
    return TheWorld.from_pretrained("theworld-tiny", world_image_size=64, dtype=torch.float32)


@torch.no_grad()
def test_entries_are_what_the_model_computes(samples, model):
    for number in range(len(samples)):
        live, read = samples[number], samples.read(number, cached=BOTH)
        ids, types = live.input_ids[None], live.token_type_ids[None]
        pixels = {"pixel_values": live.pixel_values, "world_pixel_values": live.world_pixel_values}
        features = {"image_features": read.image_features, "world_latents": read.world_latents}
        expected = model(ids, token_type_ids=types, **pixels).logits
        assert torch.equal(model(ids, token_type_ids=types, **features).logits, expected)
        other = samples.read((number + 2) % 5, cached=BOTH)
        wrong = model(ids, token_type_ids=types, image_features=other.image_features, world_latents=read.world_latents)
        assert not torch.equal(wrong.logits, expected)


def test_rows_that_look_alike_share_an_entry(samples):
    assert samples.features["image_features"].manifest.entries == 5
    assert len(samples) == 6
    again, second = samples.read(5, cached=BOTH), samples.read(1, cached=BOTH)
    assert torch.equal(again.image_features, second.image_features)
    assert torch.equal(again.world_latents, second.world_latents)


def test_shards_of_rows_and_worker_processes_give_the_same_bytes(source, cached, tmp_path, capsys):
    shards = tmp_path / "shards"
    main(["data", "shard", *of(source), f"--output={shards}"])
    where = [f"--index={shards / 'index.parquet'}", f"--shards={shards}"]
    main(["data", "cache", *where, *CACHE, f"--output={tmp_path / 'f'}", "--shard_bytes=40000", "--num_workers=1"])
    files = [path.relative_to(cached) for path in sorted(cached.rglob("*")) if path.is_file()]
    assert len(files) == 1 + 2 + 3 + 1  # drawings, manifests, shards
    for file in files:
        assert (tmp_path / "f" / file).read_bytes() == (cached / file).read_bytes(), file
    printed = capsys.readouterr().out
    assert "image_features: 5 entries (36, 128) in float32 for 6 samples" in printed
    main(["data", "cache", *where, *CACHE, f"--output={tmp_path / 'f'}", "--shard_bytes=40000"])
    assert capsys.readouterr().out.count("complete before") == 2


def test_images_at_a_time(source, samples, tmp_path):
    """In float32 the world encoder's kernels round in other ways for two; which is why one is the default."""
    main(["data", "cache", *of(source), *CACHE, f"--output={tmp_path / 'f'}", "--batch_size=2"])
    two = open_features(tmp_path / "f", enable_world=True)
    one = samples.features
    for row in range(5):
        key = _key(samples, row)
        for feature in BOTH:
            torch.testing.assert_close(two[feature].read(row, key), one[feature].read(row, key), atol=1e-4, rtol=1e-4)


def _key(samples: OSDSamples, row: int) -> bytes:
    drawings = Drawings.read(samples.features["image_features"].folder.parent / "drawings.safetensors")
    return drawings.keys[drawings.entry[row]].tobytes()


def test_a_tower_kept_in_float32_by_a_later_stage(source, tmp_path):
    mixed = ["--base=theworld-tiny", "--device=cpu", f"--output={tmp_path / 'f'}", "--trained_later=[image_features]"]
    main(["data", "cache", *of(source), *mixed])
    stores = open_features(tmp_path / "f", enable_world=True)
    found = {name: store.manifest.encoder for name, store in stores.items()}
    assert [found[name]["weights_dtype"] for name in BOTH] == ["float32", "bfloat16"]
    assert {encoder["precision"] for encoder in found.values()} == {"bf16-mixed"}
    promoted = TheWorld.from_pretrained("theworld-tiny", world_image_size=64, dtype=torch.bfloat16)
    promoted.gemma.model.vision_tower.float()
    for name in BOTH:
        assert encoder_facts(promoted, name, precision="bf16-mixed") == dict(found[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index={index}", "--output={new}"], "expected rows and images, or shards"),
        (["{rows}", "{images}", "--index={index}", "--output={new}", "--batch_size=0"], "batch_size=0"),
        (["{rows}", "{images}", "--index={index}", "--output={new}", "--features=[]"], "expected something to make"),
        (["{rows}", "{images}", "--index=none.parquet", "--output={new}"], "none.parquet"),
        (["{rows}", "{images}", "--index={index}", "--output={old}"], "entries_per_shard (cache 2, now"),
        (
            ["{rows}", "{images}", "--index={index}", "--output={old}", "--shard_bytes=40000", "--dtype=bfloat16"],
            "image_features: holds another cache: ",
        ),
    ],
)
def test_mistakes_are_named(source, cached, tmp_path, arguments, message):
    rows, images, index = source
    names = {"rows": f"--rows={rows}", "images": f"--images={images}", "index": index, "old": cached}
    before = sorted(path for path in cached.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main(["data", "cache", *CACHE, *(a.format(new=tmp_path / "new", **names) for a in arguments)])
    assert message in str(stop.value.code)
    assert sorted(path for path in cached.rglob("*")) == before


def test_one_cache_serves_every_token_budget_under_which_the_same_turns_fit(source, cached, tmp_path):
    """Latents are kept whole: what the projector averages is decided by the model that reads them."""
    rows, images, _ = source
    index = tmp_path / "fewer.parquet"
    fewer = [f"--rows={rows}", f"--images={images}", *INDEX, f"--output={index}", "--world_tokens_per_frame=16"]
    main(["data", "index", *fewer])
    assert Index.read(index).header.settings.num_world_tokens == 16
    assert Index.read(index).sha256 != Index.read(source[2]).sha256
    processor = TheWorldProcessor.from_pretrained("theworld-tiny", num_world_tokens=16, world_image_size=64)
    settings = {
        "max_seq_length": 400,
        "region_style": "box",
        "skip_malformed": False,
        "cache_dir": "",
        "cache_bytes": 1,
    }
    opener = SourceOpener(processor=processor, **settings)
    config = SourceConfig(name="a", path=str(rows), images=str(images), index=str(index), features=str(cached))
    sample = opener.open(config).read(0, cached=BOTH)
    assert sample.world_latents.shape == (1, 16, 1, 8, 8)
    model = TheWorld.from_pretrained(
        "theworld-tiny", world_image_size=64, world_tokens_per_frame=16, dtype=torch.float32
    )
    tokens = model.cosmos_encoder.project(sample.world_latents)
    assert tokens.shape[1] == int((sample.input_ids == processor.world_token_id).sum()) == 16
    expected = model.cosmos_encoder.projector.layers(sample.world_latents[0, :, 0, :2, :2].mean((1, 2)))
    torch.testing.assert_close(tokens[0, 0] / tokens[0, 0].norm(), expected / expected.norm())


def test_a_folder_of_another_index_is_refused_until_it_is_thrown_away(source, cached, tmp_path):
    rows, images, _ = source
    other = tmp_path / "other.parquet"
    shorter = [argument.replace("400", "200") for argument in INDEX]
    main(["data", "index", f"--rows={rows}", f"--images={images}", *shorter, f"--output={other}"])
    arguments = ["data", "cache", f"--rows={rows}", f"--images={images}", f"--output={tmp_path / 'f'}", *CACHE]
    main([*arguments, f"--index={source[2]}", "--features=[world_latents]"])
    with pytest.raises(SystemExit, match="holds the cache of another index"):
        main([*arguments, f"--index={other}", "--features=[world_latents]"])
    main([*arguments, f"--index={other}", "--features=[world_latents]", "--restart"])
    (store,) = open_features(tmp_path / "f", enable_world=True).values()
    assert store.manifest.index_sha256 == Index.read(other).pictures_sha256

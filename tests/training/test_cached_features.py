"""A run with cached features is the live run: the same losses and weights, in the steps in which towers are frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.tiny import WORLD_SIDE, WORLD_TOKENS
from tests.training.conftest import one_stage
from theworld.data.features.drawings import Drawings
from theworld.data.features.store import DRAWINGS, FeatureStore
from theworld.data.features.writer import write_features
from theworld.data_cli import index_rows
from theworld.feature_cache import cache_features
from theworld.models.world_sources.source import noise
from theworld.training.callbacks.cached_features import CachedFeatures
from theworld.training.callbacks.quarantine import Quarantine
from theworld.training.callbacks.stage_validation import StageValidation

pytestmark = pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")

FLOAT = {"dtype": "float32", "precision": "32-true"}
MIXED = {"dtype": "bfloat16", "precision": "bf16-mixed"}


class Watch(Callback):
    """Notes the loss of each step, and how often each tower ran in it; `trained` and `validated` apart."""

    def __init__(self):
        self.losses: dict[int, float] = {}
        self.trained: dict[int, tuple[int, int]] = {}
        self.validated: list[tuple[int, tuple[int, int]]] = []
        self._runs = [0, 0]

    def on_fit_start(self, trainer, pl_module):
        world = pl_module.world
        for place, tower in enumerate((world.gemma.model.vision_tower, world.cosmos_encoder.vae)):
            tower.register_forward_hook(lambda *_, place=place: self._count(place))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if any(self._runs):  # a stage's validation
            self.validated.append((trainer.global_step, self._taken()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        step = trainer.global_step - 1
        self.trained[step] = self._taken()
        if pl_module.steps_after(batch_idx):
            self.losses[step] = float(trainer.callback_metrics["train/loss"])

    def on_train_end(self, trainer, pl_module):
        if any(self._runs):
            self.validated.append((trainer.global_step, self._taken()))

    def _count(self, place):
        self._runs[place] += 1

    def _taken(self):
        taken, self._runs[:] = tuple(self._runs), (0, 0)
        return taken


def made(base: str, folder: Path, rows: str, images: str, name: str, *, steps: int = 0, **options) -> dict[str, str]:
    """Index, with so many world steps, and cache of one file of rows."""
    index, output = folder / f"{name}.parquet", folder / f"{name}_features"
    if not index.exists():
        index_rows(
            rows=rows,
            images=images,
            output=str(index),
            base=base,
            max_seq_length=192,
            world_image_size=WORLD_SIDE,
            num_world_steps=steps,
            num_workers=0,
        )
    cache_features(
        index=str(index), rows=rows, images=images, output=str(output), base=base, device="cpu", **FLOAT | options
    )
    return {f"{name}_index": str(index), f"{name}_features": str(output)}


@pytest.fixture(scope="module")
def caches(base, osd, tmp_path_factory) -> dict[str, str]:
    """Indices and caches of training and validation rows, float32."""
    folder = tmp_path_factory.mktemp("caches")
    return {
        key: path
        for name in ("train", "val")
        for key, path in made(base, folder, osd[f"{name}_path"], osd[f"{name}_images"], name).items()
    }


@pytest.fixture
def run(make_module, make_data, make_trainer):
    """Trains; returns the module and what was seen of it."""

    def train(data, *callbacks, stages=None, precision="32-true", dtype="float32", ckpt_path=None, steps=0, **trainer):
        watch = Watch()
        module = make_module(dtype=dtype, num_world_steps=steps, **({} if stages is None else {"stages": stages}))
        make_trainer(CachedFeatures(), watch, *callbacks, precision=precision, **trainer).fit(
            module, datamodule=make_data(**data), ckpt_path=ckpt_path
        )
        return module, watch

    return train


ONE_IMAGE = {"max_images_per_row": 1}
"""The cache was made one image at a time; float32 kernels round in other ways for several."""


@pytest.mark.parametrize("settings", [FLOAT, MIXED], ids=["float32", "bfloat16 under autocast"])
def test_a_run_through_three_stages_is_the_live_run(run, caches, base, osd, tmp_path, settings):
    """Projection reads both caches, vision the latents alone; where vision is frozen again, it stays live."""
    if settings is MIXED:
        later = {"trained_later": ["image_features"], **MIXED}
        caches = made(base, tmp_path, osd["train_path"], osd["train_images"], "train", **later)
    else:
        caches = {key: path for key, path in caches.items() if key.startswith("train")}
    cached, seen = run(ONE_IMAGE | caches, **settings)
    live, expected = run(ONE_IMAGE, **settings)
    assert seen.losses == expected.losses
    assert len(seen.losses) == 7
    assert seen.trained == {**dict.fromkeys(range(2), (0, 0)), **dict.fromkeys(range(2, 7), (1, 0))}
    assert set(expected.trained.values()) == {(1, 1)}
    for (name, ours), (_, theirs) in zip(cached.world.named_parameters(), live.world.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_rows_of_several_images_agree_to_rounding(run, caches):
    stages = one_stage(3, world_projector=1e-2, language=1e-3)
    _, seen = run(caches, stages=stages)
    _, expected = run({}, stages=stages)
    assert set(seen.trained.values()) == {(0, 0)}
    assert list(seen.losses.values()) == pytest.approx(list(expected.losses.values()), rel=1e-5)


@pytest.mark.parametrize("saved", [1, 2, 3, 6])
def test_a_resumed_run_is_the_rest_of_it(run, caches, tmp_path, saved):
    """In every stage; at a boundary; long after the image features are those of other weights."""
    data = ONE_IMAGE | {key: path for key, path in caches.items() if key.startswith("train")} | {"num_workers": 1}
    saver = ModelCheckpoint(dirpath=tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    _, through = run(data, saver, enable_checkpointing=True)
    _, rest = run(data, ckpt_path=tmp_path / "saved" / f"step={saved}.ckpt")
    assert rest.losses == {step: loss for step, loss in through.losses.items() if step >= saved}
    assert rest.trained == {step: runs for step, runs in through.trained.items() if step >= saved}


def test_validation_uses_the_cache_until_the_tower_trains(run, caches):
    cached, live = StageValidation(), StageValidation()
    _, seen = run(ONE_IMAGE | caches, cached, limit_val_batches=1.0)
    run(ONE_IMAGE, live, limit_val_batches=1.0)
    assert cached.losses == live.losses
    assert set(cached.losses) == {"projection", "vision", "language"}
    assert [runs[1] for _, runs in seen.validated] == [0] * len(seen.validated)
    assert [step for step, _ in seen.validated] == [4, 7]  # at steps 0 and 2 no tower ran


def test_the_sanity_check_before_training_is_checked_too(run, caches):
    with pytest.raises(ValueError, match="is stale: precision"):
        run(caches, precision="bf16-mixed", num_sanity_val_steps=1, limit_val_batches=1)


class ChangeVision(Callback):
    """Changes the last bit of one weight of SigLIP before the run starts."""

    def setup(self, trainer, pl_module, stage):
        configure = pl_module.configure_model

        def changed():
            configure()
            weight = pl_module.world.gemma.model.vision_tower.post_layernorm.weight
            weight.data.view(torch.int32)[3] ^= 1

        pl_module.configure_model = changed


@pytest.mark.parametrize(
    ("settings", "callbacks", "named"),
    [
        ({"precision": "bf16-mixed"}, [], r"precision \(cache 32-true, now bf16-mixed\)"),
        (MIXED, [], r"weights_sha256 .*; weights_dtype \(cache float32, now bfloat16\); precision"),
        ({}, [ChangeVision()], r"image_features is stale: weights_sha256 \(cache \w+, now \w+\)\. Make it again"),
    ],
)
def test_a_stale_cache_is_refused_before_the_first_step(run, caches, settings, callbacks, named):
    stages = one_stage(2, world_projector=1e-2)
    with pytest.raises(ValueError, match=named):
        run(ONE_IMAGE | caches, *callbacks, stages=stages, **settings)


def test_a_cache_that_the_run_cannot_use_may_be_stale(run, caches):
    """Stage 2 starts from stage 1's export; that SigLIP trains from its first step on is no reason to stop."""
    stages = one_stage(2, world_projector=1e-2, vision=1e-3)
    _, seen = run(ONE_IMAGE | caches, ChangeVision(), stages=stages)
    assert set(seen.trained.values()) == {(1, 0)}


@pytest.fixture(scope="module", params=[1, 0], ids=["a world step", "no world step"])
def frames(request, base, osd, tmp_path_factory) -> tuple[int, dict[str, str], dict[str, str]]:
    """World steps of the index, its cache of present frames, and one with a random second frame behind each."""
    folder, steps = tmp_path_factory.mktemp("future"), request.param
    paths = made(base, folder, osd["train_path"], osd["train_images"], "train", features=["world_latents"], steps=steps)
    present, future = Path(paths["train_features"]), folder / "future"
    store, drawings = FeatureStore(present, "world_latents"), Drawings.read(present / DRAWINGS)

    def latents(batches):
        for (entry,) in batches:
            now = store.read(int(drawings.rows[entry]), drawings.keys[entry].tobytes())[None]
            yield torch.cat([now, noise(now.shape, seed=0, key=str(entry))], dim=2)

    channels, _, *cells = store.manifest.shape
    facts = {**store.manifest.encoder, "kind": "random_future", "num_world_steps": "1"}
    manifest = replace(store.manifest, encoder=facts, shape=(channels, 2, *cells), shard_bytes=())
    write_features(future / "world_latents", manifest, drawings, latents, progress=False)
    drawings.write(future / DRAWINGS)
    return steps, paths, paths | {"train_features": str(future)}


def test_a_run_takes_a_cache_of_its_own_number_of_frames_only(run, frames):
    steps, present, future = frames
    settings = {"stages": one_stage(2, world_projector=1e-2), "steps": steps}
    data = ONE_IMAGE | {"num_world_tokens": (1 + steps) * WORLD_TOKENS}
    own, other = (future, present) if steps else (present, future)
    named = rf"stale: num_world_steps \(cache {1 - steps}, now {steps}\)\. .*num_world_steps \(as that of its rollout"
    with pytest.raises(ValueError, match=named):
        run(data | other, **settings)
    module, seen = run(data | own, **settings)
    assert set(seen.trained.values()) == {(1, 0)}
    if steps:  # what a future frame alone trains
        assert module.world.cosmos_encoder.projector.temporal_embedding[0].abs().max() > 1e-3


def test_other_data_or_preprocessing_is_refused_at_once(make_data, caches, osd, tmp_path):
    cached = {"train_features": caches["train_features"]}
    wrong_rows = {"train_path": osd["val_path"], "train_images": osd["val_images"]} | cached
    with pytest.raises(ValueError, match=r"train_features/image_features is stale: index_sha256 \(cache"):
        make_data(**wrong_rows).setup("fit")
    data = make_data(**cached)
    data.processor.image_processor.image_mean = [0.4, 0.5, 0.5]
    data._processor = type(data.processor)(
        data.processor.tokenizer,
        data.processor.image_processor,
        num_image_tokens=data.processor.num_image_tokens,
        num_world_tokens=data.processor.num_world_tokens,
        world_image_size=WORLD_SIDE,
    )
    with pytest.raises(ValueError, match=r"image_features is stale: preprocessing_sha256 \(cache"):
        data.setup("fit")
    with pytest.raises(ValueError, match="found val_features='x' alone, expected the rows"):
        make_data(val_path=None, val_images=None, val_features="x")


def test_a_damaged_entry_goes_to_quarantine(run, caches, base, osd, tmp_path):
    copied = made(base, tmp_path, osd["train_path"], osd["train_images"], "train")
    shard = Path(copied["train_features"]) / "world_latents" / "shard-000000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-4] ^= 1
    shard.write_bytes(content)
    quarantine = Quarantine()
    run(ONE_IMAGE | copied, quarantine, stages=one_stage(12, world_projector=1e-2))
    assert len(quarantine.failed) == 1


def test_without_the_callback_nothing_is_silently_live(make_module, make_data, make_trainer, caches):
    with pytest.raises(ValueError, match=r"add theworld.training.callbacks.cached_features.CachedFeatures to trainer"):
        make_trainer().fit(make_module(), datamodule=make_data(**caches))


def test_a_trainer_that_counts_other_steps_is_stopped(run, caches):
    """Lightning steps at the end of a limited epoch, after half of the rows of a planned step."""
    data = ONE_IMAGE | caches | {"micro_batches_per_step": 2}
    with pytest.raises(
        ValueError, match="found cached image_features in optimizer step 2, expected them before step 2"
    ):
        run(data, accumulate_grad_batches=2, limit_train_batches=3)

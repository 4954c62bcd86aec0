"""Rows with features in place of pixels: in which steps, of which towers, and what takes the place of a lost one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.counted_samples import CountedSamples
from tests.data.features.conftest import SHAPE, Cache, value
from theworld.data.features.steps import CachedSteps
from theworld.data.features.store import FeatureStore, open_features
from theworld.data.packing.collator import pack, pad
from theworld.data.packing.loader import FixedLoader, PlanLoader
from theworld.data.packing.mixture import Mixture, Source
from theworld.data.packing.packed_rows import fixed_rows
from theworld.data.samples import OSDSamples

ROWS = 22
UNTIL = {"image_features": 3, "world_latents": 7}
LATENT = (16, 1, 2, 2)


class Latents:
    """A world encoder that is a formula."""

    def __call__(self, batches):
        for batch in batches:
            yield torch.stack([torch.full(LATENT, float(entry)) for entry in batch])


@pytest.fixture
def cache(open_osd, make_row, make_samples, tmp_path) -> Cache:
    made = Cache(make_samples(open_osd([make_row(i, turns=1 + i % 3) for i in range(ROWS)])), tmp_path / "cache")
    made.write()
    made.write(Latents(), feature="world_latents", shape=LATENT)
    return made


@pytest.fixture
def samples(cache) -> OSDSamples:
    live = cache.samples
    stores = open_features(cache.folder, enable_world=True)
    return OSDSamples(live.store, index=live.index, processor=live.processor, features=stores)


def loader(samples, **changes):
    arguments = {"budget": 400, "micro_batches_per_step": 4, "seed": 5, "cached": CachedSteps(UNTIL)} | changes
    return PlanLoader(samples, **arguments)


def form(batch) -> tuple[bool, bool]:
    return batch.image_features is not None, batch.world_latents is not None


def test_a_sample_has_features_or_pixels_of_each_tower(samples):
    for number in (0, 5):
        live = samples[number]
        for cached in ([], ["image_features"], ["world_latents"], ["image_features", "world_latents"]):
            sample = samples.read(number, cached=cached)
            assert torch.equal(sample.input_ids, live.input_ids)
            assert torch.equal(sample.labels, live.labels)
            if "image_features" in cached:
                assert torch.equal(sample.image_features, value(number)[None])
                assert sample.pixel_values.shape == (0, 3, 32, 32)
            else:
                assert sample.image_features is None
                assert torch.equal(sample.pixel_values, live.pixel_values)
            if "world_latents" in cached:
                assert torch.equal(sample.world_latents, torch.full((1, *LATENT), float(number)))
                assert sample.world_pixel_values.shape == (0, 3, 16, 16)
            else:
                assert sample.world_latents is None
                assert torch.equal(sample.world_pixel_values, live.world_pixel_values)


def test_an_image_that_no_tower_needs_is_not_read(samples):
    (samples.store.images.folder / "img3.png").unlink()
    samples.read(3, cached=["image_features", "world_latents"])
    with pytest.raises(ValueError, match="img3.png"):
        samples.read(3, cached=["image_features"])


def test_with_the_world_off_the_image_features_are_all(make_processor, cache):
    live = cache.samples
    stores = open_features(cache.folder, enable_world=False)
    samples = OSDSamples(live.store, index=live.index, processor=make_processor(enable_world=False), features=stores)
    samples.lengths = samples.lengths - 7  # five world tokens, and one before and after
    (live.store.images.folder / "img3.png").unlink()
    sample = samples.read(3, cached=["image_features", "world_latents"])
    assert torch.equal(sample.image_features, value(3)[None])
    assert sample.world_latents is None
    assert len(sample.world_pixel_values) == 0


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_form_of_a_row_follows_from_its_step(samples, world_size, workers):
    """Through epochs, on several ranks, in worker processes; nothing else of a row changes."""
    ranks = [loader(samples, rank=r, world_size=world_size, num_workers=workers) for r in range(world_size)]
    plain = [loader(samples, rank=r, world_size=world_size, cached=CachedSteps()) for r in range(world_size)]
    steps = ranks[0].plan.num_steps
    assert steps < UNTIL["image_features"] + 1 < UNTIL["world_latents"] < 4 * steps
    for rank, live in zip(ranks, plain, strict=True):
        batches, others = ([b for _ in range(4) for b in which] for which in (rank, live))
        for place, (batch, other) in enumerate(zip(batches, others, strict=True)):
            step = place // (4 // world_size)
            assert form(batch) == (step < UNTIL["image_features"], step < UNTIL["world_latents"]), step
            assert batch.ids == other.ids
            assert torch.equal(batch.input_ids, other.input_ids)
            entries = [int(name.removeprefix("row-")) for name in batch.ids]
            if batch.image_features is None:
                assert torch.equal(batch.pixel_values, other.pixel_values)
            else:
                assert torch.equal(batch.image_features, torch.stack([value(entry) for entry in entries]))
                assert len(batch.pixel_values) == 0
            if batch.world_latents is not None:
                assert batch.world_latents[:, 0, 0, 0, 0].tolist() == entries


def test_a_resumed_loader_goes_on_in_the_same_form(samples):
    through = loader(samples)
    forms = [form(batch) for _ in range(7) for batch in through]
    for done in (0, 1, 2, 3, 5, 7, 8):
        running = loader(samples)
        epochs, steps = divmod(done, running.plan.num_steps)
        for _ in range(epochs):
            list(running)
        batches = iter(running)
        for _ in range(steps * 4):
            next(batches)
        again = loader(samples)
        again.load_state_dict(running.state_dict())
        rest = [form(batch) for _ in range(2) for batch in again]
        assert rest == forms[4 * done : 4 * done + len(rest)], done


def test_a_validation_reads_all_rows_in_one_form(samples):
    rows = fixed_rows(samples, budget=400)
    done = [0]
    steps = CachedSteps(UNTIL)

    def choose():
        rows.cached = steps.after(done[0])

    passes = FixedLoader(rows, before_pass=choose, num_workers=0)
    for count, expected in ((3, (True, True)), (4, (False, True)), (8, (False, False))):
        done[0] = count
        assert {form(batch) for batch in passes} == {expected}


def test_an_entry_that_cannot_be_read_costs_its_own_targets_only(samples, cache):
    shard = cache.folder / "image_features" / "shard-000001.safetensors"
    content = bytearray(shard.read_bytes())
    content[content.find(value(6).numpy().tobytes()) + 9] ^= 1
    shard.write_bytes(content)
    (whole,) = [b for b in loader(samples, cached=CachedSteps()) if "row-6" in b.ids]
    (batch,) = [b for b in loader(samples) if "row-6" in b.ids]
    assert [failure.id for failure in batch.failed] == ["row-6"]
    assert "shard-000001.safetensors: entry 2, for row 6, is damaged" in batch.failed[0].reason
    assert batch.failed[0].targets == samples.targets[6]
    place = batch.ids.index("row-6")
    assert batch.image_features.shape == (len(batch.ids), *SHAPE)
    assert batch.world_latents.shape == (len(batch.ids), *LATENT)
    assert float(batch.image_features[place].abs().sum() + batch.world_latents[place].abs().sum()) == 0
    assert torch.equal(batch.token_type_ids, whole.token_type_ids)  # its placeholders are there
    assert batch.num_target_tokens == whole.num_target_tokens - samples.targets[6]


def test_forms_do_not_mix_in_a_row(samples):
    mixed = [samples[0], samples.read(1, cached=["image_features"])]
    with pytest.raises(ValueError, match=r"found image_features in some samples of a row but not in \['row-0'\]"):
        pack(mixed, budget=800, pad_token_id=0, step_target_tokens=1)
    with pytest.raises(ValueError, match="expected all of them or none"):
        pad(mixed, pad_token_id=0, side="left")
    same = replace(mixed[1], id="twice")
    assert pack([mixed[1], same], budget=800, pad_token_id=0, step_target_tokens=1).image_features.shape[0] == 2


def test_sources_must_have_the_same_caches(samples, cache):
    with pytest.raises(ValueError, match=r"for source 'a' and {} for 'b', expected the same; a row may mix"):
        Mixture([Source("a", samples), Source("b", CountedSamples([10], processor=samples.processor))])
    other = Cache(cache.samples, cache.folder.with_name("other"))
    other.write(Latents(), shape=LATENT)
    wrong = {"image_features": FeatureStore(other.folder, "image_features")}
    changed = OSDSamples(samples.store, index=samples.index, processor=samples.processor, features=wrong)
    with pytest.raises(ValueError, match="expected the same"):
        Mixture([Source("a", samples), Source("b", changed)])
    assert set(Mixture([Source("a", samples), Source("b", samples)]).features) == set(UNTIL)

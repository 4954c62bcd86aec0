"""Rows as batches: weights and denominators, and what becomes of a sample that cannot be read."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.counted_samples import CountedSamples
from theworld.data.packing.loader import FixedLoader
from theworld.data.packing.mixture import Mixture, Source
from theworld.data.packing.packed_rows import PackedRows
from theworld.data.packing.plan import plan
from theworld.data.packing.zero_loss import zero_loss_sample
from theworld.types import IGNORE_INDEX, TokenType


def _plan(samples, **changes):
    settings = {"seed": 0, "epoch": 0, "budget": 20, "micro_batches_per_step": 2, "shuffle": False} | changes
    return plan(samples.lengths, **settings)


def test_weights_of_targets_and_the_weighted_denominator():
    mixture = Mixture(
        [
            Source("a", CountedSamples([10, 9], targets=[3, 2])),
            Source("b", CountedSamples([10, 8], targets=[4, 1]), loss_weight=0.5),
        ]
    )
    rows = PackedRows(mixture, _plan(mixture))
    first, second = rows[0], rows[1]
    assert [first.ids, second.ids] == [("a/0", "b/0"), ("a/1", "b/1")]
    assert first.target_weights.tolist() == [1, 1, 1, 0.5, 0.5, 0.5, 0.5]
    assert first.target_weights.dtype == torch.float32
    assert len(first.target_weights) == first.num_target_tokens
    assert second.target_weights.tolist() == [1, 1, 0.5]
    assert first.step_target_tokens == second.step_target_tokens == 3 + 2 + (4 + 1) / 2


def test_without_weights_there_are_none_and_targets_are_whole():
    samples = CountedSamples([10, 9, 10, 8], targets=[3, 2, 4, 1])
    batch = PackedRows(samples, _plan(samples))[0]
    assert batch.target_weights is None
    assert batch.step_target_tokens == 10
    assert isinstance(batch.step_target_tokens, int)


def test_ranks_and_a_later_beginning():
    samples = CountedSamples([15] * 8)
    made = _plan(samples, micro_batches_per_step=4)
    whole = [batch.ids for batch in FixedLoader(PackedRows(samples, made))]
    for rank in (0, 1):
        share = PackedRows(samples, made, rank=rank, world_size=2)
        assert [share[i].ids for i in range(len(share))] == whole[rank::2]
        rest = PackedRows(samples, made, rank=rank, world_size=2, first=1)
        assert [rest[i].ids for i in range(len(rest))] == whole[rank::2][1:]
        with pytest.raises(IndexError, match="row 4 asked for, there are 4"):
            share[4]


@pytest.fixture
def broken(open_osd, make_row, make_samples):
    """Six samples; the image of `row-2` was damaged after it was indexed."""
    rows = open_osd([make_row(i, turns=1 + i % 2) for i in range(6)])
    samples = make_samples(rows)
    Image.new("RGB", (40, 30)).save(rows.images.folder / "img2.png")
    return samples


def test_a_sample_that_fails_is_replaced_in_place(broken):
    arguments = {"budget": 800, "micro_batches_per_step": 1}
    made = _plan(broken, **arguments)
    with pytest.raises(ValueError, match="row-2"):
        list(FixedLoader(PackedRows(broken, made)))
    batches = list(FixedLoader(PackedRows(broken, made, replace_failures=True)))
    names = [name for batch in batches for name in batch.ids]
    assert sorted(names) == [f"row-{i}" for i in range(6)]
    failed = [failure for batch in batches for failure in batch.failed]
    assert [failure.id for failure in failed] == ["row-2"]
    assert "img2.png" in failed[0].reason
    assert failed[0].targets == broken.targets[2]
    (batch,) = [batch for batch in batches if batch.failed]
    place = batch.ids.index("row-2")
    here = batch.document_ids[0] == place
    assert int(here.sum()) == broken.lengths[2]
    assert torch.all(batch.labels[0][here] == IGNORE_INDEX)
    assert not batch.pixel_values[place].any()
    assert not batch.world_pixel_values[place].any()
    others = [i for i in range(len(batch.ids)) if i != place]
    assert all(batch.pixel_values[i].any() and batch.world_pixel_values[i].any() for i in others)
    assert batch.num_target_tokens == sum(broken.targets[int(name[4:])] for name in batch.ids if name != "row-2")
    assert sum(b.num_target_tokens for b in batches) + failed[0].targets == batches[0].step_target_tokens * len(batches)


def test_failures_come_back_from_worker_processes(broken):
    made = _plan(broken, budget=800, micro_batches_per_step=1)
    here, elsewhere = (
        list(FixedLoader(PackedRows(broken, made, replace_failures=True), num_workers=workers)) for workers in (0, 1)
    )
    assert [batch.failed for batch in here] == [batch.failed for batch in elsewhere]
    assert any(batch.failed for batch in elsewhere)


def test_a_failing_sample_of_a_weighted_source_takes_its_weight_along(broken):
    mixture = Mixture([Source("a", broken, loss_weight=0.25)])
    made = plan(mixture.lengths, seed=0, epoch=0, budget=2000, micro_batches_per_step=1)
    (batch,) = FixedLoader(PackedRows(mixture, made, replace_failures=True))
    assert batch.failed[0].targets == broken.targets[2] * 0.25
    assert batch.target_weights.sum() + batch.failed[0].targets == batch.step_target_tokens


def test_other_errors_are_bugs_and_are_not_replaced():
    class Buggy(CountedSamples):
        def read(self, number, *, cached=()):
            raise TypeError("a bug")

    samples = Buggy([10, 10])
    with pytest.raises(TypeError, match="a bug"):
        PackedRows(samples, _plan(samples, micro_batches_per_step=1), replace_failures=True)[0]


@pytest.mark.parametrize("world", [True, False])
def test_zero_loss_sample_has_the_placeholders_and_shapes_of_a_real_one(make_processor, world):
    processor = make_processor(enable_world=world)
    turns = [("Is Region [0] left?", "No.")]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    real = processor.encode(turns, image, "a", max_seq_length=400)
    made = zero_loss_sample(processor, id="a", length=len(real.input_ids), images=1)
    assert made.id == "a"
    assert len(made.input_ids) == len(made.labels) == len(made.token_type_ids) == len(real.input_ids)
    assert torch.equal(made.input_ids[: processor.fixed_tokens], real.input_ids[: processor.fixed_tokens])
    assert torch.equal(made.token_type_ids, real.token_type_ids)
    for kind in (TokenType.IMAGE, TokenType.WORLD):
        assert (made.token_type_ids == kind).sum() == (real.token_type_ids == kind).sum()
    assert torch.all(made.labels == IGNORE_INDEX)
    assert made.pixel_values.shape == real.pixel_values.shape
    assert made.world_pixel_values.shape == real.world_pixel_values.shape
    assert not made.pixel_values.any()
    assert not made.world_pixel_values.any()


def test_zero_loss_sample_of_one_without_an_image_is_text_alone(processor):
    made = zero_loss_sample(processor, id="a", length=3, images=0)
    assert made.input_ids.tolist() == [processor.pad_token_id] * 3
    assert made.token_type_ids.tolist() == [TokenType.TEXT] * 3
    assert (len(made.pixel_values), len(made.world_pixel_values)) == (0, 0)

"""World tokens drawn anew for each sample in each epoch: what is drawn, what rows hold of it, and exact resume."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.counted_samples import CountedSamples
from theworld.data.features.steps import CachedSteps
from theworld.data.packing.collator import pack
from theworld.data.packing.drawn_tokens import fewer_world_tokens
from theworld.data.packing.loader import PlanLoader
from theworld.data.packing.mixture import Mixture, Source
from theworld.data.packing.plan import plan
from theworld.data.world_block import without_world_tokens, world_token_counts
from theworld.types import IGNORE_INDEX, TokenType

ROWS, MOST, CHOICES = 22, 40, (40, 10, 3)


@pytest.fixture
def samples(open_osd, make_row, make_processor, make_samples, monkeypatch):
    rows = open_osd([make_row(i, turns=1 + i % 3) for i in range(ROWS)])
    made = make_samples(rows)
    # Indexed and read by a processor of 40 world tokens in place of the fixture's five.
    made.processor = make_processor(num_world_tokens=MOST)
    made.lengths = made.lengths + MOST - 5
    return made


def loader(samples, **changes):
    arguments = {"budget": 400, "micro_batches_per_step": 4, "seed": 5, "random_num_world_tokens": CHOICES} | changes
    return PlanLoader(samples, **arguments)


def seen(batches):
    """What of each batch depends on order and draw."""
    return [(batch.ids, batch.world_token_counts, batch.input_ids.tolist()) for batch in batches]


def drawn_of(batches) -> dict[str, int]:
    """World tokens by sample; each of these samples has one frame."""
    return {n: c for b in batches for n, c in zip(b.ids, b.world_token_counts, strict=True)}


def test_each_choice_falls_to_equally_many_samples_and_another_epoch_is_another_deal():
    images = np.ones(31, dtype=np.int64)
    draws = [fewer_world_tokens(images, choices=CHOICES, most=MOST, seed=1, epoch=epoch) for epoch in range(40)]
    for draw in draws:
        assert Counter((MOST - draw).tolist()) == {40: 11, 10: 10, 3: 10}
    assert len({draw.tobytes() for draw in draws}) == 40
    every = np.stack(draws)
    assert all(set((MOST - every[:, sample]).tolist()) == set(CHOICES) for sample in range(31))
    again = fewer_world_tokens(images, choices=CHOICES, most=MOST, seed=1, epoch=7)
    assert np.array_equal(again, draws[7])
    other = fewer_world_tokens(images, choices=CHOICES, most=MOST, seed=2, epoch=7)
    assert not np.array_equal(other, draws[7])


def test_a_sample_without_an_image_loses_nothing():
    images = np.array([1, 0] * 10)
    fewer = fewer_world_tokens(images, choices=(3, 10), most=MOST, seed=0, epoch=0)
    assert not fewer[images == 0].any()
    assert set(fewer[images == 1].tolist()) == {37, 30}


@pytest.mark.parametrize("world_position", ["first", "after_image"])
def test_a_shortened_sample_is_that_of_a_processor_with_fewer_world_tokens(make_processor, world_position):
    turns = [("Is Region [0] left?", "No."), ("Is Region [1]?", "Yes.")]
    whole = make_processor(num_world_tokens=MOST, world_position=world_position)
    sample = whole.encode(turns, None, "a", max_seq_length=400)
    for count in CHOICES:
        fewer = make_processor(num_world_tokens=count, world_position=world_position)
        expected = fewer.encode(turns, None, "a", max_seq_length=400)
        found = without_world_tokens(sample, MOST - count)
        for name in ("input_ids", "labels", "token_type_ids"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), (count, name)
        assert world_token_counts([found]) == (count,)
    with pytest.raises(ValueError, match="a: found 40 world placeholders of which 40 are to go"):
        without_world_tokens(sample, MOST)


def test_rows_hold_what_was_drawn_and_every_target(samples):
    made = loader(samples)
    whole = {sample.id: sample for sample in (samples[number] for number in range(ROWS))}
    epochs = [list(made) for _ in range(4)]
    for batches in epochs:
        drawn = drawn_of(batches)
        assert Counter(drawn.values()) == {40: 8, 10: 7, 3: 7}
        assert sorted(drawn) == sorted(whole)
        for batch in batches:
            assert batch.input_ids.shape == (1, 400)
            rest = batch.input_ids[0].split([*batch.document_lengths, 400 - sum(batch.document_lengths)])
            for name, count, ids in zip(batch.ids, batch.world_token_counts, rest, strict=False):
                assert torch.equal(ids, without_world_tokens(whole[name], MOST - count).input_ids)
            assert int((batch.token_type_ids == TokenType.WORLD).sum()) == sum(batch.world_token_counts)
            assert len(batch.world_pixel_values) == len(batch.world_token_counts)
        counted = [int((batch.labels != IGNORE_INDEX).sum()) for batch in batches]
        assert sum(counted) == samples.targets.sum()  # a draw takes no target away, nor makes room for another turn
        for first in range(0, len(batches), 4):
            of_step = batches[first : first + 4]
            assert {batch.step_target_tokens for batch in of_step} == {sum(counted[first : first + 4])}
    assert len({tuple(sorted(drawn_of(batches).items())) for batches in epochs}) == 4


def test_fewer_rows_than_whole_samples_need(samples):
    assert loader(samples).plan.num_rows < loader(samples, random_num_world_tokens=None).plan.num_rows


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_and_workers_share_one_draw(samples, world_size):
    alone = seen(loader(samples))
    ranks = [seen(loader(samples, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert [item for together in zip(*ranks, strict=True) for item in together] == alone
    assert seen(loader(samples, num_workers=1)) == alone


@pytest.mark.parametrize("done", [1, 2, 3, 5])
def test_a_run_that_goes_on_has_the_same_draws(samples, done):
    through = loader(samples)
    stream = [item for _ in range(4) for item in seen(through)]
    running = loader(samples)
    epochs, batches = divmod(done * 4, len(running))
    for _ in range(epochs):
        list(running)
    going = iter(running)
    for _ in range(batches):
        next(going)
    again = loader(samples)
    again.load_state_dict(running.state_dict())
    rest = [item for _ in range(2) for item in seen(again)]
    assert rest == stream[done * 4 : done * 4 + len(rest)]
    pair = [loader(samples, rank=rank, world_size=2) for rank in (0, 1)]
    for half in pair:
        half.load_state_dict(running.state_dict())
    dealt = [item for together in zip(*(seen(half) for half in pair), strict=True) for item in together]
    assert dealt == rest[: len(dealt)]


def test_the_hash_of_a_plan_knows_the_draw():
    images = np.ones(40, dtype=np.int64)
    arguments = {"seed": 0, "epoch": 0, "budget": 100, "micro_batches_per_step": 1, "images": images, "max_images": 1}

    def made(seed):
        def fewer(epoch):
            return fewer_world_tokens(images, choices=(3, 10), most=20, seed=seed, epoch=epoch)

        return plan(np.full(40, 50), **arguments, fewer=fewer)

    first, second = made(1), made(2)  # one sample a row, so that the rows are the same
    assert np.array_equal(first.samples, second.samples)
    assert first.sha256 != second.sha256
    assert first.sha256 == made(1).sha256


def test_other_choices_do_not_go_on(samples):
    state = loader(samples).state_dict()
    with pytest.raises(ValueError, match=r"changed: random_num_world_tokens \(saved \[40, 10, 3\], now \[40, 10\]\)"):
        loader(samples, random_num_world_tokens=(40, 10)).load_state_dict(state)
    with pytest.raises(ValueError, match=r"random_num_world_tokens \(saved \[40, 10, 3\], now None\)"):
        loader(samples, random_num_world_tokens=None).load_state_dict(state)
    changed = state | {"plan_sha256": "0" * 64}
    with pytest.raises(ValueError, match="the plan, made from the same data by"):
        loader(samples).load_state_dict(changed)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ((41, 3), "found random_num_world_tokens=[41, 3], expected numbers of 1 to num_world_tokens=40"),
        ((0, 3), "found random_num_world_tokens=[0, 3], expected numbers of 1 to num_world_tokens=40"),
        ((), "found random_num_world_tokens=[], expected numbers of 1"),
    ],
)
def test_numbers_that_no_sample_can_have_are_refused(samples, choices, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        loader(samples, random_num_world_tokens=choices)


def test_a_sample_of_two_images_is_refused(samples):
    samples.num_images = samples.num_images + 1
    with pytest.raises(ValueError, match="found a sample of 2 images with random_num_world_tokens, expected at most"):
        loader(samples)


def test_limits_count_the_largest_draw(samples):
    """Whatever falls to the longest sample in epoch 0: another epoch would stop in the middle of a run."""
    longest = int(samples.lengths.max())
    assert loader(samples, budget=longest).plan.num_rows > 0
    with pytest.raises(ValueError, match=f"has {longest} tokens, expected at most the budget of {longest - 1}"):
        loader(samples, budget=longest - 1)
    sample = samples[int(samples.lengths.argmax())]  # the collator refuses it with the same number
    with pytest.raises(ValueError, match=f"found {longest} tokens in 1 samples"):
        pack([sample], budget=longest - 1, pad_token_id=0, step_target_tokens=1)
    arguments = {"seed": 0, "epoch": 0, "micro_batches_per_step": 1, "fewer": lambda epoch: np.full(9, 30)}
    assert plan(np.full(9, 50), budget=50, **arguments).num_rows > 0
    with pytest.raises(ValueError, match="has 50 tokens, expected at most the budget of 49"):
        plan(np.full(9, 50), budget=49, **arguments)


def test_a_sample_that_fails_is_replaced_by_one_as_long_as_its_draw(samples):
    before = list(loader(samples))
    (samples.store.images.folder / "img2.png").unlink()
    after = list(loader(samples))
    assert [f.id for batch in after for f in batch.failed] == ["row-2"]
    for one, other in zip(before, after, strict=True):
        assert one.document_lengths == other.document_lengths
        assert one.world_token_counts == other.world_token_counts
        assert torch.equal(one.token_type_ids, other.token_type_ids)


def test_cached_latents_stay_whole(samples):
    class Store:
        def zeros(self):
            return torch.zeros(16, 1, 8, 5)

        def read(self, number, key):
            return torch.full((16, 1, 8, 5), float(number))

    samples.features = {"world_latents": Store()}
    cached = list(loader(samples, cached=CachedSteps({"world_latents": 100})))
    live = list(loader(samples))
    for batch, other in zip(cached, live, strict=True):
        assert batch.world_latents.shape == (len(batch.ids), 16, 1, 8, 5)
        assert batch.world_token_counts == other.world_token_counts
        assert torch.equal(batch.input_ids, other.input_ids)


PROCESSOR_OF_20 = type("Processor", (), {"num_world_tokens": 20, "pad_token_id": 0, "fixed_tokens": 21})()


@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(st.integers(5, 60), min_size=24, max_size=80),
    share=st.sampled_from([0.5, 1.0, 2.0]),
    step=st.sampled_from([1, 2, 4]),
    budget=st.sampled_from([90, 200]),
    max_images=st.sampled_from([None, 2]),
    window=st.sampled_from([None, 1]),
)
def test_every_sample_once_within_the_budget_in_every_epoch(text, share, step, budget, max_images, window):
    """Plans alone, over shares, budgets, image limits and windows; the same steps in every epoch."""
    PROCESSOR_OF_20.tokenizer = type("Tokenizer", (), {"get_vocab": lambda self: {}})()
    samples = CountedSamples([20 + n for n in text], groups=np.arange(len(text)) // 10, processor=PROCESSOR_OF_20)
    mixture = Mixture([Source("only", samples, share)])
    made = PlanLoader(
        mixture,
        budget=budget,
        micro_batches_per_step=step,
        max_images=max_images,
        window=window,
        random_num_world_tokens=(20, 5, 1),
    )
    for epoch in range(5):
        found = made.plan_of(epoch)
        assert sorted(found.samples.tolist()) == mixture.epoch(epoch, seed=0).tolist()
        assert set(found.fewer.tolist()) <= {0, 15, 19}
        assert found.num_steps == made.plan.num_steps
        sizes = samples.lengths[found.samples] - found.fewer
        rows = np.add.reduceat(sizes, found.starts[:-1])
        assert rows.max() <= budget
        assert found.fill_ratio == pytest.approx(sizes.sum() / (found.num_rows * budget))
        for row in range(found.num_rows):
            assert len(found.row(row)) == len(found.row_fewer(row)) > 0


def test_an_epoch_that_needs_more_rows_takes_epoch_0_with_its_draw():
    """Lengths of the epoch itself would not fit into the rows of epoch 0."""
    lengths, images = np.random.default_rng(0).integers(60, 100, 50), np.ones(50, dtype=np.int64)
    arguments = {"seed": 0, "budget": 100, "micro_batches_per_step": 1}

    def fewer(epoch):
        return np.full(50, 0 if epoch else 55)  # the later epoch is the longer one

    base = plan(lengths, epoch=0, **arguments, fewer=fewer)
    later = plan(lengths, epoch=3, **arguments, fewer=fewer, num_steps=base.num_steps)
    for made in (base, later):
        assert made.fewer.tolist() == [55] * 50
        sizes = np.add.reduceat(lengths[made.samples] - made.fewer, made.starts[:-1])
        assert sizes.max() <= 100
    assert later.num_steps == base.num_steps < 50
    assert later.samples.tolist() != base.samples.tolist()
    assert len(images) == len(set(later.samples.tolist()))


def test_fixed_lengths_leave_a_plan_as_it_was():
    lengths = np.random.default_rng(0).integers(20, 60, 200)
    arguments = {"seed": 0, "epoch": 1, "budget": 100, "micro_batches_per_step": 2}
    made = plan(lengths, **arguments)
    assert made.fewer is None
    assert made.row_fewer(0).tolist() == [0] * len(made.row(0))

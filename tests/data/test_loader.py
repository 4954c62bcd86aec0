"""Planned loading: exact shares, exact denominators, exact resume, and refusal when anything changed."""

import numpy as np
import pytest
import torch

from theworld.data.index import build_index
from theworld.data.loader import FixedLoader, PlanLoader, packed_rows
from theworld.data.plan import plan
from theworld.data.samples import OSDSamples, Prompts
from theworld.types import IGNORE_INDEX

ROWS = 22


@pytest.fixture
def samples(open_osd, make_row, processor):
    rows = open_osd([make_row(i, turns=1 + i % 3) for i in range(ROWS)])
    index = build_index(rows, processor, max_seq_length=400, name="train")
    return OSDSamples(rows, index=index, processor=processor)


def _loader(samples, **changes):
    settings = {"budget": 400, "micro_batches_per_step": 4, "seed": 5} | changes
    return PlanLoader(samples, **settings)


def _names(batches):
    return [batch.ids for batch in batches]


def test_one_epoch_holds_every_row_once_and_the_next_another_order(samples):
    loader = _loader(samples)
    first, second = list(loader), list(loader)
    for batches in (first, second):
        assert len(batches) == len(loader)
        assert sorted(name for ids in _names(batches) for name in ids) == sorted(f"row-{i}" for i in range(ROWS))
        assert all(batch.input_ids.shape == (1, 400) for batch in batches)
    assert _names(first) != _names(second)
    assert loader.epoch == 2


def test_step_target_tokens_are_counted_over_the_whole_step(samples):
    batches = list(_loader(samples))
    counted = [int((batch.labels != IGNORE_INDEX).sum()) for batch in batches]
    assert counted == [batch.num_target_tokens for batch in batches]
    for start in range(0, len(batches), 4):
        assert {batch.step_target_tokens for batch in batches[start : start + 4]} == {sum(counted[start : start + 4])}
    assert sum(counted) == samples.targets.sum()


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_each_step_of_the_same_plan(samples, world_size):
    alone = _names(_loader(samples))
    ranks = [_names(_loader(samples, rank=rank, world_size=world_size)) for rank in range(world_size)]
    dealt = [ids for together in zip(*ranks, strict=True) for ids in together]
    assert dealt == alone


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_at_every_step_on_one_and_on_two_ranks(samples, workers):
    through = _loader(samples)
    stream = _names(through) + _names(through)
    steps = len(through) // 4
    for done in range(1, 2 * steps + 1) if workers == 0 else (1, steps):
        loader = _loader(samples)
        for _ in range(done * 4 // len(loader)):
            list(loader)
        running = iter(loader)
        for _ in range(done * 4 % len(loader)):
            next(running)
        state = loader.state_dict()
        again = _loader(samples, num_workers=workers)
        again.load_state_dict(state)
        assert (again.epoch, state["step"]) == divmod(done, steps)
        rest = _names(again) + _names(again)
        assert rest[: len(stream) - done * 4] == stream[done * 4 :]
        pair = [_loader(samples, rank=rank, world_size=2) for rank in (0, 1)]
        for half in pair:
            half.load_state_dict(state)
        halves = [_names(half) for half in pair]
        dealt = [ids for together in zip(*halves, strict=True) for ids in together]
        assert dealt == rest[: len(dealt)]


def test_epoch_advances_with_its_last_batch_not_after_it(samples):
    """Lightning never asks for the batch after the last, and may save right after the last."""
    loader = _loader(samples)
    running = iter(loader)
    for _ in range(len(loader)):
        next(running)
    assert (loader.state_dict()["epoch"], loader.state_dict()["step"]) == (1, 0)


def test_iter_alone_changes_nothing(samples):
    loader = _loader(samples)
    before = loader.state_dict()
    iter(loader)
    assert loader.state_dict() == before
    assert _names(loader) == _names(_loader(samples))


def test_changed_settings_or_data_are_refused(samples, open_osd, make_row, processor):
    state = _loader(samples).state_dict()
    cases = [
        (_loader(samples, seed=6), r"seed \(saved 5, now 6\); plan_sha256"),
        (_loader(samples, budget=500), r"budget \(saved 400, now 500\)"),
        (_loader(samples, micro_batches_per_step=2), r"micro_batches_per_step \(saved 4, now 2\)"),
    ]
    rows = open_osd([make_row(i, turns=1 + i % 3, id=f"other-{i}") for i in range(ROWS)], "other.json")
    index = build_index(rows, processor, max_seq_length=400, name="train")
    cases.append((_loader(OSDSamples(rows, index=index, processor=processor)), r"these changed: index_sha256"))
    for loader, message in cases:
        with pytest.raises(ValueError, match=message):
            loader.load_state_dict(state)
    _loader(samples).load_state_dict(state)


def test_state_in_the_middle_of_a_step_is_refused(samples):
    loader = _loader(samples)
    running = iter(loader)
    for _ in range(5):
        next(running)
    with pytest.raises(ValueError, match="in the middle of optimizer step 1 of epoch 0"):
        _loader(samples).load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="micro_batches_per_step is 4, expected a multiple of the 3 devices"):
        _loader(samples, world_size=3)


def test_file_changed_since_indexing(samples, make_row, write_osd):
    rows = [make_row(i, turns=1 + i % 3) for i in range(ROWS)]
    text = rows[0]["conversations"][1]["value"]
    rows[0]["conversations"][1]["value"] = "no" + text[2:]  # as many bytes, other tokens
    write_osd(rows)
    with pytest.raises(ValueError, match=r"row 0, id 'row-0': found \(\d+, \d+\) .* from the index"):
        list(_loader(samples))


def test_regions_of_dropped_turns_are_not_drawn(open_osd, make_row, processor):
    boxes = [[2, 3, 12, 20], [20, 10, 38, 28], [2, 21, 12, 29], [13, 3, 19, 28]]
    rows = open_osd([make_row(0, turns=2, bbox=boxes), make_row(0, turns=1, bbox=boxes[:2])])
    index = build_index(rows, processor, max_seq_length=400, name="t")
    whole = OSDSamples(rows, index=index, processor=processor)
    index = build_index(rows, processor, max_seq_length=int(index.lengths[1]), name="t")
    cut = OSDSamples(rows, index=index, processor=processor)
    assert index.kept_turns.tolist() == [1, 1]
    assert torch.equal(cut[0].pixel_values, whole[1].pixel_values)
    assert not torch.equal(cut[0].pixel_values, whole[0].pixel_values)


def test_fixed_rows_start_again_every_time(samples):
    fixed = plan(samples.lengths, seed=0, epoch=0, budget=400, micro_batches_per_step=2, shuffle=False)
    loaders = [FixedLoader(packed_rows(samples, fixed, rank=rank, world_size=2)) for rank in (0, 1)]
    next(iter(loaders[0]))
    passes = [_names(loader) for loader in (*loaders, loaders[0])]
    assert passes[0] == passes[2]
    assert len(passes[0]) == len(passes[1]) == len(loaders[0])
    assert sorted(n for ids in passes[0] + passes[1] for n in ids) == sorted(f"row-{i}" for i in range(ROWS))


@pytest.fixture
def test_rows(open_osd, make_row, processor):
    def build(rows):
        opened = open_osd(rows, "test.json")
        index = build_index(opened, processor, max_seq_length=400, name="test")
        return OSDSamples(opened, index=index, processor=processor)

    return build


def test_prompts_and_their_questions(test_rows, make_row, processor):
    prompts = Prompts(test_rows([make_row(i) for i in range(5)]), batch_size=2)
    got = list(FixedLoader(prompts))
    assert [len(batch.questions) for batch in got] == [2, 2, 1]
    first = got[0].questions[1]
    assert first.id == "row-1"
    assert first.image_id == "img1"
    assert first.question == "Is Region [0] left of Region [1]??"
    assert first.answer == "Yes, Region [0] is left of Region [1]."
    assert (first.qa_type, first.qa_category) == ("qualitative", "left_predicate")
    batch = got[0].batch
    assert batch.ids == ("row-0", "row-1")
    assert batch.num_target_tokens == 0
    header = processor.tokenizer("<start_of_turn>model\n", add_special_tokens=False)["input_ids"]
    assert batch.input_ids[:, -len(header) :].tolist() == [header, header]
    assert batch.document_ids[0, 0] == -1  # the shorter prompt is padded on the left
    answer = processor.tokenizer("Yes,", add_special_tokens=False)["input_ids"]
    assert answer[0] not in batch.input_ids


@pytest.mark.parametrize(("count", "world_size", "size"), [(7, 2, 2), (8, 4, 3), (5, 2, 32), (9, 3, 1)])
def test_ranks_get_equally_many_prompt_batches_and_no_question_twice(test_rows, make_row, count, world_size, size):
    samples = test_rows([make_row(i) for i in range(count)])
    shares = [Prompts(samples, batch_size=size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    groups = [group for share in shares for group in share.groups]
    assert max(map(len, groups)) <= size
    assert sorted(np.concatenate(groups).tolist()) == list(range(count))


def test_rows_that_are_no_test_rows(test_rows, make_row):
    with pytest.raises(ValueError, match="row 1, id 'row-1': found 2 turns"):
        Prompts(test_rows([make_row(0), make_row(1, turns=2)]), batch_size=2)
    with pytest.raises(ValueError, match="qa_info None, expected one turn and qa_info"):
        Prompts(test_rows([make_row(0, qa_info=None)]), batch_size=2)
    with pytest.raises(ValueError, match=r"more than once, \['same'\]"):
        Prompts(test_rows([make_row(0, id="same"), make_row(1, id="same")]), batch_size=2)
